"""A replica of the echo model: `python -m tests.unit.channel.replica_process SOCKET DELAY_S`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.unit.channel.peers import replica


async def main(path: str, delay_s: str) -> None:
    async with replica(Path(path), delay_s=float(delay_s)):
        print("ready", flush=True)
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
