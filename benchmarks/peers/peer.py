"""What the benchmark knows about a server: how it is installed, started and asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks import digits

Row = list[float]


@dataclass(frozen=True, slots=True)
class Api:
    """How one row is sent and how the logits come back."""

    path: str
    body: Callable[[Row], bytes]
    logits: Callable[[Any], Row]
    """Takes them out of the decoded JSON of an answer."""


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


OIP = Api(digits.PATH, digits.body, lambda answer: list(answer["outputs"][0]["data"]))
"""The Open Inference Protocol, which we speak too."""

LITSERVE = Api("/predict", lambda row: _json({"input": row}), lambda answer: answer["output"])
BENTOML = Api("/predict", lambda row: _json({"rows": [row]}), lambda answer: answer[0])


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to set a peer up. Which of them is best on this machine is tried out."""

    name: str
    options: tuple[str, ...] = ()
    """Of its command."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of its environment."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that pip can install."""

    name: str
    folder: str
    """Of `benchmarks/peers` with its requirements, and of `var/peers` with its environment."""
    package: str
    """The distribution whose version is reported."""
    module: str
    """Runs it; takes ``--port``, ``--weights`` and the options of a setup."""
    api: Api
    setups: tuple[Setup, ...]


def _batches(rows: int, *options: str) -> tuple[str, ...]:
    return (*options, "--rows", str(rows))


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "litserve",
            "litserve",
            "litserve",
            "benchmarks.peers.litserve.server",
            LITSERVE,
            (
                Setup("1 worker", ("--workers", "1")),
                Setup("1 worker, batches", _batches(64, "--workers", "1")),
                Setup("2 workers", ("--workers", "2", "--api-servers", "2")),
                Setup("2 workers, batches", _batches(64, "--workers", "2", "--api-servers", "2")),
                Setup(
                    "1 worker, batches, 2 API servers",
                    _batches(64, "--workers", "1", "--api-servers", "2"),
                ),
            ),
        ),
        Peer(
            "bentoml",
            "bentoml",
            "bentoml",
            "benchmarks.peers.bentoml.server",
            BENTOML,
            (
                Setup("1 worker", ("--workers", "1")),
                Setup("1 worker, batches", _batches(64, "--workers", "1")),
                Setup("2 workers", ("--workers", "2")),
                Setup("2 workers, batches", _batches(64, "--workers", "2")),
            ),
        ),
        Peer(
            "mlserver",
            "mlserver",
            "mlserver",
            "benchmarks.peers.mlserver.server",
            OIP,
            (
                Setup("no workers", ("--workers", "0")),
                Setup("no workers, batches", _batches(64, "--workers", "0")),
                Setup("1 worker", ("--workers", "1")),
                Setup("1 worker, batches", _batches(64, "--workers", "1")),
                Setup("2 workers, batches", _batches(64, "--workers", "2")),
            ),
        ),
        # Ray Serve as its documentation shows it: nothing is tuned but `max_ongoing_requests`, of
        # which it warns itself; benchmarks/servers/ray_serve_default.py says why.
        Peer(
            "ray-serve",
            "ray_serve",
            "ray",
            "benchmarks.servers.ray_serve_default",
            OIP,
            (Setup("as documented"),),
        ),
        # The same application in the mode for high throughput: gRPC between the replicas, no thread
        # of its own for user code, and HAProxy as the proxy, which is also tried out without
        # (docs.ray.io, kuberay/user-guides/serve-high-throughput).
        Peer(
            "ray-serve-tuned",
            "ray_serve",
            "ray",
            "benchmarks.servers.ray_serve_default",
            OIP,
            (
                Setup(
                    "throughput optimized, HAProxy",
                    variables={
                        "RAY_SERVE_ENABLE_HA_PROXY": "1",
                        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
                    },
                ),
                Setup("throughput optimized", variables={"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}),
            ),
        ),
    )
}
