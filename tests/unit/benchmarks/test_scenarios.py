"""What scenarios compute besides starting servers."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from benchmarks import binary, grpc_calls, plain_torch, run_routing
from benchmarks.cluster import CONFIGS, ports
from benchmarks.errors import BenchmarkError
from benchmarks.predictors.first_value import FirstValue
from benchmarks.predictors.process_id import ProcessId
from benchmarks.run_large import CONNECTIONS, IMAGE_BYTES, SIDES, image
from benchmarks.run_scaling import LOAD_S, QUIET_RATE
from benchmarks.run_steady import compare_memory
from benchmarks.sentences import sentences
from serve_app.config.load import load_config
from serve_app.domain.tensor import TensorSpec
from serve_app.errors import PredictorError
from serve_app.predictors.predictor import LoadContext
from tests.unit.benchmarks.results import results


def test_a_binary_request_is_described_by_its_head() -> None:
    value = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    body, headers = binary.request("x", value)
    head = int(headers[binary.LENGTH])
    described = json.loads(body[:head])
    assert described["inputs"][0]["shape"] == [1, 2, 3]
    assert described["inputs"][0]["parameters"]["binary_data_size"] == len(body) - head == 24
    assert body[head:] == value.tobytes()


def test_the_first_output_of_a_binary_answer() -> None:
    def output(size: int) -> dict[str, object]:
        return {"shape": [1, size], "parameters": {"binary_data_size": 4 * size}}

    head = json.dumps({"outputs": [output(2), output(1)]}).encode()
    body = head + np.array([1.5, 2.5, 9.0], np.float32).tobytes()
    assert binary.first_output(body, len(head)).tolist() == [[1.5, 2.5]]


def test_images_are_as_large_as_promised_and_fit_into_the_queue_together() -> None:
    assert IMAGE_BYTES == 602_112
    assert image(SIDES[0]).nbytes == IMAGE_BYTES
    assert np.array_equal(image(8), image(8))
    assert CONNECTIONS * 3 * SIDES[-1] ** 2 * 4 <= 256 * 2**20  # batching.max_queue_bytes


def context(*outputs: str) -> LoadContext:
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, 3, -1, -1))
    declared = tuple(TensorSpec(name=name, datatype="FP32", shape=(-1, 1)) for name in outputs)
    return LoadContext(artifact=None, device="cpu", threads=1, inputs=(x,), outputs=declared)


def test_the_paced_model_says_which_process_answers() -> None:
    (version, sleeper) = load_config(["model=[paced]"], CONFIGS).models["paced"].versions.values()
    assert version.predictor.arguments == sleeper.predictor.arguments
    assert version.predictor.arguments["load_s"] == LOAD_S
    assert (version.replicas.min, version.replicas.max) == (1, 4)
    assert (sleeper.replicas.min, sleeper.replicas.downscale_delay_s) == (0, 1)
    assert QUIET_RATE * version.predictor.arguments["delay_s"] < 0.5  # no reason for a second one
    model = ProcessId(load_s=0.0, delay_s=0.0)
    model.load(context("process"))
    found = model.predict({"x": np.zeros((2, 1), np.float32)})["process"]
    assert found.tolist() == [[os.getpid()], [os.getpid()]]


def test_the_trivial_model_returns_the_first_value_of_each_row() -> None:
    model = FirstValue()
    model.load(context("first"))
    rows = np.concatenate([image(4), image(5)[:, :, :4, :4]])
    found = model.predict({"x": rows})["first"]
    assert found.tolist() == [[rows[0, 0, 0, 0]], [rows[1, 0, 0, 0]]]


def test_the_trivial_model_has_one_output() -> None:
    with pytest.raises(PredictorError, match="one input and one output"):
        FirstValue().load(context("first", "second"))


def test_the_configuration_of_the_trivial_model_is_valid() -> None:
    config = load_config(["model=[image]"], CONFIGS)
    assert config.models["image"].inputs[0].name == "x"


MEMORY = [(5.0 * step, {"ingress": 100.0 + step, "raylet": 30.0}) for step in range(1, 61)]


def test_memory_is_compared_from_the_end_of_the_warm_up() -> None:
    found = compare_memory([*MEMORY, (305.0, {"ingress": 170.0, "late": 5.0, "raylet": 30.0})])
    assert found["ingress"] == {"after_warm_up_mib": 112.0, "end_mib": 170.0}
    assert set(found) == {"ingress", "raylet"}


def test_a_short_run_warms_up_for_a_fifth_of_it() -> None:
    found = compare_memory([entry for entry in MEMORY if entry[0] <= 50])
    assert found["ingress"] == {"after_warm_up_mib": 102.0, "end_mib": 110.0}


def test_no_look_at_the_memory_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="too short"):
        compare_memory([])


def test_what_the_grpc_load_prints() -> None:
    printed = {"seconds": 2.0, "answered": 300, "errors": 2, "p50_ms": 1.0, "p90_ms": 2.0}
    result = grpc_calls.parse(json.dumps({**printed, "p99_ms": 3.0, "calls_per_s": 150.0}))
    assert result.requests_per_s == 150.0
    assert result.errors == 2
    assert (result.p50_ms, result.p90_ms, result.p99_ms) == (1.0, 2.0, 3.0)
    with pytest.raises(BenchmarkError, match="not understood"):
        grpc_calls.parse("{}")
    with pytest.raises(BenchmarkError, match="not understood"):
        grpc_calls.parse("Traceback")


def test_plain_torch_computes_whole_rounds_sorted_by_length() -> None:
    class Noted(plain_torch.Embedder):
        def __init__(self) -> None:
            self.batches: list[list[str]] = []

        def embed(self, texts: object) -> object:  # type: ignore[override]
            assert isinstance(texts, list)
            self.batches.append(texts)
            return None

    embedder, texts = Noted(), sentences(100, "uniform")
    found = plain_torch.measure(embedder, texts, 0.001)
    assert found["sentences_per_s"] > 0
    measured = embedder.batches[4:]  # after the warm-up
    assert len(measured) % 4 == 0
    first = [text for batch in measured[:4] for text in batch]
    assert sorted(first) == sorted(texts)
    assert [len(text) for text in first] == sorted(len(text) for text in texts)


def test_releases_of_some_models() -> None:
    models = {f"m-{number}": run_routing.model(number) for number in range(50)}
    figures = run_routing.measure(models, run_routing.announced(models))
    assert set(figures) <= set(results()["routing"])
    assert all(value > 0 for value in figures.values())


def test_ports_of_a_cluster() -> None:
    overrides, http, grpc, metrics = ports()
    assert f"http.port={http.partition(':')[2]}" in overrides
    assert f"grpc.port={grpc.partition(':')[2]}" in overrides
    assert f"metrics.port={metrics.partition(':')[2]}" in overrides
    assert len({override.partition("=")[2] for override in overrides}) == 5
