"""tritonclient, unmodified, against the real listener: JSON, binary, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from serve_app.domain.tensor import DTYPES, Array
from tests.contract.live_http import LiveServer, live_server

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65535],
    "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 1, 2**64 - 1],
    "INT8": [-128, 0, 127],
    "INT16": [-(2**15), 0, 2**15 - 1],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
    "FP16": [-1.5, 0.0, 65504.0],
    "FP32": [-1.5, 1e-38, 3e38],
    "FP64": [-1.5, 1e-300, 1e300],
    "BYTES": [b"", b"text", 'é:"{'.encode()],
}


FORMS = [
    (datatype, binary)
    for datatype in VALUES
    for binary in (True, False)
    if binary or datatype != "FP16"  # which this client sends as binary only
]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as made:
        yield made


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[Any]:
    made = triton.InferenceServerClient(server.address, concurrency=2)
    yield made
    made.close()


def array_of(datatype: str) -> Array:
    return np.array([VALUES[datatype]], DTYPES[datatype])


def infer(client: Any, model: str, datatype: str, array: Array, binary: bool, **more: Any) -> Any:
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return client.infer(model, [tensor], **more)


@pytest.mark.parametrize("answer_binary", [True, False])
@pytest.mark.parametrize(("datatype", "binary"), FORMS)
def test_every_datatype(client: Any, datatype: str, binary: bool, answer_binary: bool) -> None:
    array = array_of(datatype)
    outputs = [triton.InferRequestedOutput("x", binary_data=answer_binary)]
    result = infer(client, f"echo_{datatype}", datatype, array, binary, outputs=outputs)
    back = result.as_numpy("x")
    if datatype == "BYTES" and not answer_binary:
        back = np.array([[text.encode() for text in back.ravel().tolist()]], np.object_)
    assert back.shape == array.shape
    assert back.ravel().tolist() == array.ravel().tolist()
    assert result.get_response()["model_version"] == "1"


def test_bf16_in_binary(client: Any) -> None:
    array = np.array([[1.5, -2.0, 3.0]], ml_dtypes.bfloat16)
    result = infer(client, "echo_BF16", "BF16", array, True)
    assert result.as_numpy("x").astype(ml_dtypes.bfloat16).tolist() == array.tolist()


def test_non_finite_numbers_pass_in_binary(client: Any) -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 1e-45]], np.float32)
    result = infer(client, "echo_FP32", "FP32", array, True)
    assert result.as_numpy("x").tobytes() == array.tobytes()


def test_bytes_that_are_not_text(client: Any) -> None:
    array: Array = np.array([[b"\xff\x00", b"\x80"]], np.object_)
    result = infer(client, "echo_BYTES", "BYTES", array, True)
    assert result.as_numpy("x").ravel().tolist() == [b"\xff\x00", b"\x80"]
    with pytest.raises(InferenceServerException, match="binary_data"):
        infer(
            client,
            "echo_BYTES",
            "BYTES",
            array,
            True,
            outputs=[triton.InferRequestedOutput("x", binary_data=False)],
        )


def test_several_inputs_and_outputs_in_mixed_forms(client: Any) -> None:
    first = triton.InferInput("a", [2, 2], "INT32")
    first.set_data_from_numpy(np.array([[1, 2], [3, 4]], np.int32), binary_data=True)
    second = triton.InferInput("b", [2], "BYTES")
    second.set_data_from_numpy(np.array([b"x", b"yz"], np.object_), binary_data=False)
    outputs = [
        triton.InferRequestedOutput("b", binary_data=True),
        triton.InferRequestedOutput("a", binary_data=False),
    ]
    result = client.infer(
        "pair", [first, second], outputs=outputs, request_id="q-1", model_version="2"
    )
    assert result.as_numpy("a").tolist() == [[1, 2], [3, 4]]
    assert result.as_numpy("b").tolist() == [b"x", b"yz"]
    response = result.get_response()
    assert response["id"] == "q-1"
    assert response["model_version"] == "2"
    assert [output["name"] for output in response["outputs"]] == ["b", "a"]


def test_raw_requests_and_headers(client: Any, server: LiveServer) -> None:
    array = np.arange(4, dtype=np.float32)
    response = client._post(
        request_uri="v2/models/echo/infer",
        request_body=array.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
        query_params=None,
    )
    assert response.status_code == 200
    assert bytes(response.read()).endswith(array.tobytes())


def test_concurrent_requests_share_batches(client: Any, server: LiveServer) -> None:
    arrays = [np.full((1, 4), n, np.float32) for n in range(20)]
    pending = []
    for array in arrays:
        tensor = triton.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(array)
        pending.append(client.async_infer("echo", [tensor]))
    for array, request in zip(arrays, pending, strict=True):
        assert request.get_result().as_numpy("x").tolist() == array.tolist()


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pair")
    assert client.is_model_ready("pair", "2")
    assert not client.is_model_ready("pair", "3")
    assert not client.is_model_ready("no")
    assert client.get_server_metadata()["name"] == "serve-app"
    metadata = client.get_model_metadata("pair", "2")
    assert metadata["versions"] == ["2"]
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["a", "b"]
    index = client.get_model_repository_index()
    assert {"name": "pair", "version": "3", "state": "UNAVAILABLE"} in [
        {key: each[key] for key in ("name", "version", "state")} for each in index
    ]


def test_errors_reach_the_caller_as_text_and_status(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="'no' is not served here") as caught:
        infer(client, "no", "FP32", np.zeros((1, 4), np.float32), True)
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="does not fit") as caught:
        infer(client, "echo", "FP32", np.zeros((1, 5), np.float32), True)
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="configuration"):
        client.load_model("echo")
    with pytest.raises(InferenceServerException, match="configuration"):
        client.unload_model("echo")


def test_the_timeout_parameter_is_in_microseconds(client: Any, server: LiveServer) -> None:
    server.gateway.delay_s = 0.5
    try:
        with pytest.raises(InferenceServerException, match="deadline") as caught:
            infer(client, "echo", "FP32", np.zeros((1, 4), np.float32), True, timeout=20_000)
        assert caught.value.status() == "504"
    finally:
        server.gateway.delay_s = 0.0


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_refused_with_a_text(client: Any, algorithm: str) -> None:
    with pytest.raises(InferenceServerException, match="compressed") as caught:
        infer(
            client,
            "echo",
            "FP32",
            np.zeros((1, 4), np.float32),
            True,
            request_compression_algorithm=algorithm,
        )
    assert caught.value.status() == "415"
