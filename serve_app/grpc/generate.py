"""Generates the message classes from `open_inference.proto`: `python -m serve_app.grpc.generate`.

Stock clients bring their own messages of the same full names, and protobuf's default pool takes
each name once per process. So ours live in a pool of their own: the one line of protoc's output
that names the pool is replaced. Everything else is as protoc wrote it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROTO = HERE / "open_inference.proto"
GENERATED = HERE / "generated"
NAMES = ("open_inference_pb2.py", "open_inference_pb2.pyi")

_DEFAULT_POOL = "_descriptor_pool.Default()"
_OWN_POOL = "_descriptor_pool.DescriptorPool()"


def generate(target: Path) -> None:
    """Writes the generated modules into `target`; needs grpcio-tools."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"--proto_path={HERE}",
                f"--python_out={folder}",
                f"--pyi_out={folder}",
                PROTO.name,
            ],
            check=True,
        )
        for name in NAMES:
            text = (Path(folder) / name).read_text()
            if name.endswith(".py"):
                if text.count(_DEFAULT_POOL) != 1:
                    raise SystemExit(f"protoc's output names {_DEFAULT_POOL} not exactly once")
                text = text.replace(_DEFAULT_POOL, _OWN_POOL)
            (target / name).write_text(text)


if __name__ == "__main__":
    generate(GENERATED)
