"""ONNX files may keep tensors in other files: only in files of their own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serve_app.errors import PredictorError
from serve_app.predictors.onnx import OnnxModel
from tests.unit.predictors.samples import context, spec


def number(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def field(key: int, value: int | str | bytes) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return number(key << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(key << 3 | 2) + number(len(data)) + data


def adds_tensor_at(location: str) -> bytes:
    """y = x + w, with w [2] as FP32 in the file at `location`. Field numbers are onnx.proto's."""
    vector = field(1, field(1, 1) + field(2, field(1, field(1, 2))))
    where = field(1, "location") + field(2, location)
    weight = field(1, 2) + field(2, 1) + field(8, "w") + field(13, where) + field(14, 1)
    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "Add")
    values = (
        field(11, field(1, "x") + field(2, vector)),
        field(12, field(1, "y") + field(2, vector)),
    )
    graph = field(1, node) + field(2, "g") + field(5, weight) + b"".join(values)
    return field(1, 8) + field(8, field(2, 13)) + field(7, graph)


def load(path: Path) -> OnnxModel:
    model = OnnxModel()
    model.load(context([spec("x", "FP32", 2)], [spec("y", "FP32", 2)], artifact=path))
    return model


def test_only_files_of_the_models_own_folder_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.array([5, 6], np.float32).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(secret.read_bytes())
    (folder / "link").symlink_to(secret)
    path = folder / "model.onnx"
    path.write_bytes(adds_tensor_at("weights"))
    result = load(path).predict({"x": np.zeros(2, np.float32)})["y"]
    np.testing.assert_array_equal(result, [5, 6])
    for location in ("../secret", str(secret), "link"):
        path.write_bytes(adds_tensor_at(location))
        with pytest.raises(PredictorError, match=r"model\.onnx is no readable ONNX model"):
            load(path)
