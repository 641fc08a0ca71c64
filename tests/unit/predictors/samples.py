"""Predictors, networks and batches that the tests here share."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from serve_app.config.model import PredictorConfig
from serve_app.domain.inference import InferenceBatch
from serve_app.domain.tensor import Array, TensorSpec
from serve_app.errors import InvalidInput
from serve_app.predictors.predictor import LoadContext, Predictor

HERE = "tests.unit.predictors.samples"


def config(target: str, **arguments: Any) -> PredictorConfig:
    return PredictorConfig.model_validate({"_target_": target, **arguments})


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


X = spec("x", "FP32", -1, 2)
Y = spec("y", "FP32", -1, 2)


def context(
    inputs: Sequence[TensorSpec] = (X,), outputs: Sequence[TensorSpec] = (Y,), **others: Any
) -> LoadContext:
    values = {"artifact": None, "device": "cpu", "threads": 1, **others}
    return LoadContext(inputs=tuple(inputs), outputs=tuple(outputs), **values)


def batch(
    inputs: Mapping[str, Array], rows: Sequence[int] | None = None, budget_s: float = 60.0
) -> InferenceBatch:
    """A batch of one-row members unless `rows` says otherwise."""
    if rows is None:
        rows = [1] * len(next(iter(inputs.values())))
    names = tuple(f"request-{number}" for number in range(len(rows)))
    return InferenceBatch(inputs, tuple(rows), (budget_s,) * len(rows), names)


def column(*values: float) -> dict[str, Array]:
    """Input x with rows [value, value]."""
    return {"x": np.repeat(np.array(values, np.float32)[:, None], 2, axis=1)}


class Doubler(Predictor):
    """y = 2 * x; a row with a negative number fails, one with a NaN is invalid."""

    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor
        self.calls: list[int] = []
        self.closed = False

    def load(self, context: LoadContext) -> None:
        self.context = context

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        x = inputs["x"]
        self.calls.append(len(x))
        if np.isnan(x).any():
            raise InvalidInput(f"x[{int(np.isnan(x).any(axis=1).argmax())}] is not a number", "x")
        if (x < 0).any():
            raise RuntimeError(f"secret internals: {x.tolist()}")
        return {"y": x * np.float32(self.factor)}

    @property
    def metadata(self) -> Mapping[str, str]:
        return {"factor": str(self.factor)}

    def close(self) -> None:
        self.closed = True


class Abstract(Predictor):
    """Lacks `predict`."""

    def load(self, context: LoadContext) -> None: ...


class NotOne:
    """Is no predictor."""


class BrokenLoad(Doubler):
    """Cannot load."""

    def __init__(self, error: str) -> None:
        super().__init__()
        self.error = error

    def load(self, context: LoadContext) -> None:
        errors: dict[str, BaseException] = {
            "memory": MemoryError("no memory"),
            "exit": SystemExit(3),
            "value": ValueError("bad weights"),
        }
        raise errors[self.error]


class Returns(Predictor):
    """Returns what the test put here."""

    answer: Any = None

    def load(self, context: LoadContext) -> None: ...

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        answer: Mapping[str, Array] = self.answer
        return answer


class Gate(Predictor):
    """Computes only while its gate is open; notes when it begins."""

    opened = threading.Event()
    begun = threading.Event()

    def load(self, context: LoadContext) -> None:
        Gate.opened.clear()
        Gate.begun.clear()

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        Gate.begun.set()
        if not Gate.opened.wait(30):
            raise RuntimeError("the gate stayed closed")
        return {"y": inputs["x"]}


class Paced(Predictor):
    """Waits for a permit before each computation; notes how many rows each one has."""

    permits = threading.Semaphore(0)
    begun = threading.Semaphore(0)

    def __init__(self) -> None:
        self.calls: list[int] = []

    def load(self, context: LoadContext) -> None: ...

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.calls.append(len(inputs["x"]))
        Paced.begun.release()
        if not Paced.permits.acquire(timeout=30):
            raise RuntimeError("no permit came")
        return {"y": inputs["x"]}


class Raises(Predictor):
    """Raises one of the errors that must not end the compute thread."""

    def __init__(self, error: str) -> None:
        self.error = error

    def load(self, context: LoadContext) -> None: ...

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if float(inputs["x"].min()) >= 0:
            return {"y": inputs["x"]}
        if self.error == "recursion":
            return self.predict(inputs)
        kinds: dict[str, type[BaseException]] = {
            "memory": MemoryError,
            "stop": StopIteration,
            "exit": SystemExit,
            "key": KeyError,
        }
        raise kinds[self.error]("internal")


class InPlace(Predictor):
    """Wants to change its inputs."""

    def load(self, context: LoadContext) -> None: ...

    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        inputs["x"][...] = 0
        return {"y": inputs["x"]}


class Affine(nn.Module):
    """y = x @ w + b."""

    def __init__(self, width: int = 2, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


class Network(nn.Module):
    """Has one weight, and returns its inputs in the given form."""

    def __init__(self, form: str = "tensor") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.form = form

    def forward(self, first: torch.Tensor, second: torch.Tensor | None = None) -> Any:
        if self.form == "tensor":
            return first
        if self.form == "tuple":
            return first, second
        if self.form == "dict":
            return {"b": second, "a": first}
        if self.form == "text":
            return "no tensor"
        return first.mul_(0).add_(7)  # in place
