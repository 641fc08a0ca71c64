from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from serve_app.domain.tensor import DTYPES
from serve_app.errors import ModelFailed, PredictorError
from serve_app.predictors.torch_module import TorchModule
from serve_app.predictors.torch_tensor import to_array, to_tensor
from tests.unit.predictors.samples import HERE, Affine, Network, X, Y, column, context, spec

CPU = torch.device("cpu")


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {"linear.weight": torch.eye(2) * 2, "linear.bias": torch.ones(2)}


def affine(**arguments: Any) -> TorchModule:
    return TorchModule({"_target_": f"{HERE}.Affine"}, **arguments)


def test_safetensors_with_metadata(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state, path, {"accuracy": "0.99"})
    model = affine()
    model.load(context(artifact=path))
    np.testing.assert_array_equal(model.predict(column(1, 2))["y"], [[3, 3], [5, 5]])
    assert model.metadata == {"accuracy": "0.99"}
    model.close()
    with pytest.raises(PredictorError, match="not loaded"):
        model.predict(column(1))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_state_dicts(tmp_path: Path, state: dict[str, torch.Tensor], suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(state, path)
    model = affine()
    model.load(context(artifact=path))
    np.testing.assert_array_equal(model.predict(column(1))["y"], [[3, 3]])


def test_a_state_dict_inside_a_checkpoint(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "model.pt"
    torch.save({"step": 7, "model_state": state}, path)
    model = affine(state_key="model_state")
    model.load(context(artifact=path))
    np.testing.assert_array_equal(model.predict(column(1))["y"], [[3, 3]])
    with pytest.raises(PredictorError, match=r"no state dict \(it holds: step, model_state\)"):
        affine().load(context(artifact=path))
    with pytest.raises(PredictorError, match=r"state_key: model.pt has no 'weights'"):
        affine(state_key="weights").load(context(artifact=path))


def test_a_file_inside_a_folder(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "README.md").write_text("about")
    affine().load(context(artifact=tmp_path))
    torch.save(state, tmp_path / "b.pt")
    with pytest.raises(PredictorError, match=r"found a.safetensors, b.pt"):
        affine().load(context(artifact=tmp_path))
    affine(file="b.pt").load(context(artifact=tmp_path))
    for file in ("c.pt", "../b.pt", "/etc/passwd"):
        with pytest.raises(PredictorError, match="has no file"):
            affine(file=file).load(context(artifact=tmp_path))
    with pytest.raises(PredictorError, match=r"README.md is none of"):
        affine(file="README.md").load(context(artifact=tmp_path))


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("writer", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o, 2))])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, writer: Any) -> None:
    path, marker = tmp_path / "model.pt", tmp_path / "ran"
    writer({"linear.weight": Exploit(marker)}, path)
    with pytest.raises(PredictorError, match="refused"):
        affine().load(context(artifact=path))
    assert not marker.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(Affine(), tmp_path / "model.pt")
    with pytest.raises(PredictorError, match="save the state dict alone"):
        affine().load(context(artifact=tmp_path / "model.pt"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linear.bias": None}, "Missing key.*linear.bias"),
        ({"extra": torch.ones(1)}, "Unexpected key.*extra"),
        ({"linear.bias": torch.ones(3)}, "size mismatch for linear.bias"),
    ],
)
def test_weights_must_fit_exactly(
    tmp_path: Path, state: dict[str, torch.Tensor], change: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.safetensors"
    merged = {**state, **change}
    save_file({name: value for name, value in merged.items() if value is not None}, path)
    with pytest.raises(PredictorError, match=f"(?s)does not fit.*{words}"):
        affine().load(context(artifact=path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.safetensors", b""),
        ("m.safetensors", b"\xff" * 64),
        ("m.safetensors", (10**9).to_bytes(8, "little") + b"{}"),
        ("m.pt", b""),
        ("m.pt", b"PK\x03\x04 cut off"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PredictorError, match=name):
        affine().load(context(artifact=tmp_path / name))


def test_no_artifact_and_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match="needs an artifact"):
        affine().load(context())
    with pytest.raises(PredictorError, match="does not exist"):
        affine().load(context(artifact=tmp_path / "none.pt"))
    (tmp_path / "m.pt").touch()
    with pytest.raises(PredictorError, match="needs an artifact that is a folder"):
        affine(file="m.pt").load(context(artifact=tmp_path / "m.pt"))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({}, "network: needs _target_"),
        ("Affine", "network: needs _target_"),
        ({"_target_": f"{HERE}.Doubler"}, "not a subclass of torch.nn.modules.module.Module"),
        ({"_target_": f"{HERE}.Affine", "widht": 2}, "unknown argument 'widht'.*width: int = 2"),
        ({"_target_": f"{HERE}.Affine", "width": "wide"}, "Affine: TypeError"),
    ],
)
def test_a_network_that_cannot_be_built(tmp_path: Path, network: Any, words: str) -> None:
    (tmp_path / "m.pt").touch()
    with pytest.raises(PredictorError, match=words):
        TorchModule(network).load(context(artifact=tmp_path / "m.pt"))


# --- signatures ------------------------------------------------------------------------------

AB = [spec("a", "FP32", -1), spec("b", "FP32", -1)]


def network(tmp_path: Path, form: str, inputs: Any, outputs: Any, **arguments: Any) -> TorchModule:
    save_file(Network().state_dict(), tmp_path / "m.safetensors")
    model = TorchModule({"_target_": f"{HERE}.Network", "form": form}, **arguments)
    model.load(context(inputs, outputs, artifact=tmp_path / "m.safetensors"))
    return model


def ab() -> dict[str, Any]:
    return {"b": np.full(2, 2, np.float32), "a": np.full(2, 1, np.float32)}


def test_inputs_are_positional_in_declared_order(tmp_path: Path) -> None:
    found = network(tmp_path, "tuple", AB, AB).predict(ab())
    assert {name: array[0] for name, array in found.items()} == {"a": 1, "b": 2}


def test_inputs_by_keyword(tmp_path: Path) -> None:
    arguments = {"a": "second", "b": "first"}
    found = network(tmp_path, "tuple", AB, AB, arguments=arguments).predict(ab())
    assert {name: array[0] for name, array in found.items()} == {"a": 2, "b": 1}
    with pytest.raises(PredictorError, match="arguments: must name the inputs a, b"):
        network(tmp_path, "tuple", AB, AB, arguments={"a": "first"})


def test_outputs_by_name(tmp_path: Path) -> None:
    found = network(tmp_path, "dict", AB, AB).predict(ab())
    assert {name: array[0] for name, array in found.items()} == {"a": 1, "b": 2}
    renamed = network(tmp_path, "dict", AB, [spec("c", "FP32", -1)], results={"c": "b"})
    assert renamed.predict(ab())["c"][0] == 2


@pytest.mark.parametrize(
    ("form", "outputs", "words"),
    [
        ("tensor", AB, "returned 1 tensors for 2 outputs"),
        ("tuple", AB[:1], "returned 2 tensors for 1 outputs"),
        ("dict", [spec("c", "FP32", -1)], "output 'c' is not among b, a"),
        ("text", AB[:1], "returned a str, not a tensor"),
    ],
)
def test_results_that_do_not_fit(tmp_path: Path, form: str, outputs: Any, words: str) -> None:
    with pytest.raises(ModelFailed, match=words):
        network(tmp_path, form, AB, outputs).predict(ab())


def test_a_network_that_works_in_place_does_not_reach_the_inputs(tmp_path: Path) -> None:
    model = network(tmp_path, "in_place", [X], [Y])
    inputs = column(1)
    inputs["x"].flags.writeable = False
    np.testing.assert_array_equal(model.predict(inputs)["y"], [[7, 7]])
    np.testing.assert_array_equal(inputs["x"], [[1, 1]])


# --- tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
def test_arrays_become_tensors_and_come_back(datatype: str) -> None:
    array = np.array([[0, 1], [2, 3], [4, 5]]).astype(DTYPES[datatype])
    for given in (array, array[::2], array.T, array[:0], array[0, 0, ...]):
        given.flags.writeable = False
        tensor = to_tensor(given, CPU)
        back = to_array(tensor)
        assert back.dtype == given.dtype
        np.testing.assert_array_equal(back, given)
    assert str(to_tensor(array, CPU).dtype).removeprefix("torch.") == {
        "BOOL": "bool",
        "FP16": "float16",
        "BF16": "bfloat16",
        "FP32": "float32",
        "FP64": "float64",
    }.get(datatype, datatype.lower())


def test_text_is_no_tensor() -> None:
    with pytest.raises(PredictorError, match="no tensors of dtype object"):
        to_tensor(np.array([b"x"], np.object_), CPU)


def test_threads_are_set(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "m.safetensors")
    before = torch.get_num_threads()
    try:
        affine().load(context(artifact=tmp_path / "m.safetensors", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
