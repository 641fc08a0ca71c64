"""Which layer a stack belongs to."""

from __future__ import annotations

import pytest

from benchmarks import layers
from benchmarks.layers import layer, place

LOOP = ["_bootstrap (threading.py:1002)", "Thread.run (threading.py:982)"]
HANDLER = [*LOOP, "InferHandler.__call__ (serve_app/http/infer.py:40)"]


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ([*LOOP, "data_received (serve_app/http/protocol.py:12)"], layers.HTTP),
        ([*LOOP, "RequestResponseCycle.send (uvicorn/protocols/http/x.py:500)"], layers.HTTP),
        ([*HANDLER, "decode_infer (serve_app/http/v2/infer_request.py:130)"], layers.DECODE),
        ([*HANDLER, "array_from_json (serve_app/http/v2/tensor_codec.py:400)"], layers.DECODE),
        ([*HANDLER, "_Reader._array (serve_app/http/v2/infer_request.py:233)"], layers.DECODE),
        ([*HANDLER, "array_to_json (serve_app/http/v2/tensor_codec.py:542)"], layers.ENCODE),
        ([*HANDLER, "encode_infer (serve_app/http/v2/infer_answer.py:48)"], layers.ENCODE),
        ([*HANDLER, "DataPlane.infer (serve_app/dataplane.py:80)"], layers.DATA_PLANE),
        ([*LOOP, "Batcher._send (serve_app/batching.py:80)"], layers.DATA_PLANE),
        ([*LOOP, "choose_version (serve_app/domain/routing.py:80)"], layers.DATA_PLANE),
        ([*LOOP, "HandleGateway.call (deployments/gateway.py:60)"], layers.GATEWAY),
        ([*LOOP, "Connection.send (serve_app/channel/connection.py:60)"], layers.GATEWAY),
        ([*LOOP, "Waiting.pop (serve_app/waiting.py:60)"], layers.DATA_PLANE),
        ([*LOOP, "UnaryUnaryCall.__init__ (grpc/aio/_call.py:600)"], layers.GATEWAY),
        ([*LOOP, "dumps (cloudpickle/cloudpickle.py:1)"], layers.GATEWAY),
        ([*LOOP, "Recorder.flush (serve_app/telemetry/recorder.py:9)"], layers.TELEMETRY),
        ([*LOOP, "StreamHandler.emit (logging/__init__.py:1100)"], layers.TELEMETRY),
        (LOOP, layers.LOOP),
        ([*LOOP, "_run_once (asyncio/base_events.py:1900)"], layers.LOOP),
        ([*LOOP, "select (selectors.py:468)"], layers.LOOP),
        ([*LOOP, "something (elsewhere.py:1)"], layers.OTHER),
        ([], layers.NATIVE),
    ],
)
def test_a_stack_has_a_layer(stack: list[str], expected: str) -> None:
    assert layer(stack) == expected


def test_a_library_counts_for_whoever_called_it() -> None:
    numpy = "asarray (numpy/core/numeric.py:1)"
    assert layer([*HANDLER, "array_from_json (serve_app/http/v2/tensor_codec.py:1)", numpy]) == (
        layers.DECODE
    )
    assert layer([*LOOP, "HandleGateway.call (deployments/gateway.py:1)", numpy]) == layers.GATEWAY


def test_what_turns_the_loop_has_no_part_in_what_the_loop_does() -> None:
    root = ["Server.run (uvicorn/server.py:75)", "Runner.run (asyncio/runners.py:118)"]
    ray = ["X.<locals>._run_user_code_event_loop (ray/serve/_private/replica.py:9)"]
    assert layer(root) == layers.LOOP
    assert layer(ray) == layers.LOOP
    assert layer([*root, "Batcher._send (serve_app/batching.py:80)"]) == layers.DATA_PLANE
    assert layer([*root, "something (elsewhere.py:1)"]) == layers.OTHER


def test_every_layer_is_listed_once() -> None:
    assert len(set(layers.LAYERS)) == len(layers.LAYERS)
    assert {rule[1] for rule in layers._RULES} <= set(layers.LAYERS)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ("run (a/b.py:12)", "a/b.py:run"),
        ("A.<locals>.b (a/b.py:12)", "a/b.py:A.<locals>.b"),
        ("run (a/b.py)", "a/b.py:run"),
        ("exists (<frozen genericpath>:19)", "<frozen genericpath>:exists"),
        ("no frame at all", "no frame at all"),
    ],
)
def test_place_of_a_frame(frame: str, expected: str) -> None:
    assert place(frame) == expected
