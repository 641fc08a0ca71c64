from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serve_app.errors import PredictorError
from serve_app.predictors.build import build_predictor
from tests.unit.predictors.samples import HERE, Doubler, config


def test_builds_with_arguments() -> None:
    predictor = build_predictor(config(f"{HERE}.Doubler", factor=3.0))
    assert isinstance(predictor, Doubler)
    assert predictor.factor == 3.0


@pytest.mark.parametrize(
    ("target", "arguments", "words"),
    [
        ("no_such_package.Thing", {}, ["no_such_package.Thing", "no module 'no_such_package'"]),
        ("serve_app.nowhere.Thing", {}, ["there is no module 'serve_app.nowhere'"]),
        (f"{HERE}.Missing", {}, [HERE, "no class 'Missing'"]),
        (f"{HERE}.HERE", {}, ["no class 'HERE'"]),
        (f"{HERE}.NotOne", {}, ["not a subclass of serve_app.predictors.predictor.Predictor"]),
        (f"{HERE}.Abstract", {}, ["does not implement predict"]),
        (f"{HERE}.Doubler", {"facotr": 1}, ["unknown argument 'facotr'", "factor: float = 2.0"]),
        (f"{HERE}.Raises", {}, ["missing argument 'error'", "Allowed: error: str"]),
        (f"{HERE}.Gate", {"x": 1}, ["unknown argument 'x'", "Allowed: none"]),
    ],
)
def test_refuses_with_a_text_that_helps(
    target: str, arguments: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(PredictorError) as caught:
        build_predictor(config(target, **arguments))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nothing_like_this\n", "needs 'nothing_like_this'"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError"),
        ("def broken(:\n", "cannot be imported: SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    (tmp_path / "users_own_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_own_module", raising=False)
    with pytest.raises(PredictorError, match=words):
        build_predictor(config("users_own_module.Model"))


def test_an_argument_that_the_constructor_refuses() -> None:
    with pytest.raises(PredictorError, match=r"method: 'fit' is not one of predict"):
        build_predictor(config("serve_app.predictors.sklearn_model.SklearnModel", method="fit"))
