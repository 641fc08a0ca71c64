"""An ingress as far as telemetry is concerned: `python -m ... FOLDER PORT`, then commands on stdin.

A number finishes that many requests and is answered by a line; the end of the input closes it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from serve_app.config.cluster import LogConfig
from serve_app.config.listener import MetricsConfig
from serve_app.domain.inference import BatchResult, VersionKey
from serve_app.http.listener import HttpListener
from serve_app.log import configure_logging
from serve_app.telemetry.recorder import Recorder
from serve_app.telemetry.trace import RequestTrace

KEY = VersionKey("digits", "2")


def finish(recorder: Recorder, count: int) -> None:
    for number in range(count):
        trace = RequestTrace("http", f"id-{number}")
        trace.model, trace.version, trace.rows, trace.batch_rows = "digits", "2", 1, 1
        recorder.finish(trace, 200, "ok")
        recorder.observe_batch(KEY, 1, BatchResult({}, {}, 0.001, "direct"))
        recorder.count_fallback(KEY, "connect")


async def main(folder: Path, port: int) -> None:
    configure_logging(LogConfig(), process="ingress")
    metrics = MetricsConfig(port=port)
    recorder = Recorder(metrics, LogConfig(), folder)
    listener = HttpListener(recorder.scrape_app, metrics.listener(), "metrics")
    await recorder.start()
    await listener.start()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        finish(recorder, int(line))
        print("done", flush=True)
    await listener.drain(1.0)
    await recorder.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
