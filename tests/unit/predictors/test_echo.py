from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from serve_app.errors import InvalidInput, PredictorError
from serve_app.predictors.echo import EchoModel
from tests.unit.predictors.samples import context, spec

TEXT = np.array([b"good", b"bad"], np.object_)
NUMBERS = np.array([1.0, 13.0], np.float32)


def echo(**arguments: Any) -> EchoModel:
    model = EchoModel(**arguments)
    inputs = [spec("a", "BYTES", -1), spec("b", "FP32", -1)]
    outputs = [spec("c", "BYTES", -1), spec("d", "FP32", -1)]
    model.load(context(inputs, outputs))
    return model


def test_returns_inputs_as_outputs() -> None:
    result = echo(delay_s=0.001).predict({"a": TEXT, "b": NUMBERS})
    assert result["c"] is TEXT
    assert result["d"] is NUMBERS


@pytest.mark.parametrize("value", ["bad", 13])
def test_fails_or_rejects_on_a_value(value: str | int) -> None:
    with pytest.raises(RuntimeError):
        echo(fail_on=value).predict({"a": TEXT, "b": NUMBERS})
    with pytest.raises(InvalidInput):
        echo(reject_on=value).predict({"a": TEXT, "b": NUMBERS})
    echo(fail_on=value, reject_on=value).predict({"a": TEXT[:1], "b": NUMBERS[:1]})


def test_exits_on_a_value() -> None:
    code = (
        "import numpy as np; from serve_app.predictors.echo import EchoModel; "
        "EchoModel(exit_on=13).predict({'x': np.array([13])}); print('alive')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == run.stderr == ""


def test_signatures_must_match() -> None:
    with pytest.raises(PredictorError, match="of the same datatypes"):
        EchoModel().load(context([spec("a", "FP32", -1)], [spec("b", "FP16", -1)]))


def test_importing_the_host_loads_no_runtime() -> None:
    code = (
        "import sys, serve_app.predictors.host, serve_app.predictors.build, "
        "serve_app.predictors.echo, serve_app.artifacts, serve_app.examples.prepare\n"
        "heavy = {'torch', 'sklearn', 'skops', 'onnxruntime', 'transformers', 'ray', 's3fs', "
        "'aiohttp', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
