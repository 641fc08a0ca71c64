from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from serve_app.errors import PredictorError
from serve_app.predictors.sklearn_model import SklearnModel
from tests.unit.predictors.samples import X, context, spec

ROWS = np.array([[0, 0], [0, 1], [1, 0], [3, 3], [4, 3], [3, 4]], np.float32)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(ROWS, np.array(["low", "low", "low", "high", "high", "high"]))
    path = tmp_path / "model.skops"
    skops.io.dump(model, path)
    return path


def loaded(path: Path, output: Any, **arguments: Any) -> SklearnModel:
    model = SklearnModel(**arguments)
    model.load(context(outputs=[output], artifact=path))
    return model


@pytest.mark.parametrize(
    ("method", "output", "expected"),
    [
        ("predict_proba", spec("y", "FP32", -1, 2), None),
        ("decision_function", spec("y", "FP64", -1), None),
        ("predict", spec("y", "BYTES", -1), ["low", "high"]),
    ],
)
def test_methods(classifier: Path, method: str, output: Any, expected: Any) -> None:
    model = loaded(classifier, output, method=method)
    rows = ROWS[[0, 4]]
    rows.flags.writeable = False
    result = model.predict({"x": rows})["y"]
    assert len(result) == 2
    if expected is not None:
        assert result.tolist() == expected
    else:
        assert result.dtype == output.dtype
    model.close()
    with pytest.raises(PredictorError, match="not loaded"):
        model.predict({"x": rows})


def test_transform(tmp_path: Path) -> None:
    path = tmp_path / "scaler.skops"
    skops.io.dump(StandardScaler().fit(ROWS), path)
    result = loaded(path, spec("y", "FP32", -1, 2), method="transform").predict({"x": ROWS})["y"]
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-6)
    with pytest.raises(PredictorError, match="a StandardScaler has no 'predict'"):
        loaded(path, spec("y", "FP32", -1, 2))


def test_types_that_skops_does_not_know_must_be_trusted(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    name = f"{halve.__module__}.{halve.__name__}"
    skops.io.dump(FunctionTransformer(halve), path)
    with pytest.raises(PredictorError, match=f"not trusted: {name}"):
        loaded(path, spec("y", "FP32", -1, 2), method="transform")
    model = loaded(path, spec("y", "FP32", -1, 2), method="transform", trusted=[name])
    np.testing.assert_array_equal(model.predict({"x": ROWS})["y"], ROWS / 2)


def halve(x: Any) -> Any:
    return x / 2


def test_facts_beside_the_file(classifier: Path) -> None:
    output = spec("y", "BYTES", -1)
    assert loaded(classifier, output).metadata == {}
    sidecar = classifier.with_suffix(".json")
    sidecar.write_text('{"accuracy": 0.97, "data": "digits"}')
    assert loaded(classifier, output).metadata == {"accuracy": "0.97", "data": "digits"}
    for content, words in (("[]", "one JSON object"), ("{", "no JSON"), ("\udcff", "no JSON")):
        sidecar.write_text(content, errors="surrogateescape")
        with pytest.raises(PredictorError, match=words):
            loaded(classifier, output)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x05\x06" + bytes(18)])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(PredictorError, match=r"model.skops is no readable skops file"):
        loaded(tmp_path / "model.skops", spec("y", "FP32", -1))


def test_pickles_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(PredictorError, match=r"model.pkl is none of .skops"):
        loaded(tmp_path / "model.pkl", spec("y", "FP32", -1))


def test_one_input_and_one_output(classifier: Path) -> None:
    two = [X, spec("z", "FP32", -1)]
    with pytest.raises(PredictorError, match="one input and one output"):
        SklearnModel().load(context(two, artifact=classifier))


def test_an_unknown_method() -> None:
    with pytest.raises(PredictorError, match="method: 'fit' is not one of predict"):
        SklearnModel(method="fit")
