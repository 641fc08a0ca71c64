"""What model code must offer: one small contract, with no HTTP and no Ray in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serve_app.domain.tensor import Array, TensorSpec


@dataclass(frozen=True, slots=True)
class LoadContext:
    """What a predictor may use when it loads."""

    artifact: Path | None
    """The local copy of the version's artifact (file or folder), already verified."""
    device: str
    """A torch device name: ``cpu`` or ``cuda:0`` (the GPU that Ray assigned is always 0)."""
    threads: int
    """How many threads the predictor may compute with."""
    inputs: tuple[TensorSpec, ...]
    """Declared inputs of the model."""
    outputs: tuple[TensorSpec, ...]
    """Declared outputs of the model."""


class Predictor(ABC):
    """Turns a batch of inputs into a batch of outputs.

    The constructor takes the arguments of the config (`predictor:` without `_target_`) and does
    nothing heavy; it raises PredictorError, TypeError or ValueError for an argument that is not
    allowed. All other methods are called from one thread, never two at a time.
    """

    @abstractmethod
    def load(self, context: LoadContext) -> None:
        """Reads the artifact and gets ready; raises when it cannot."""

    @abstractmethod
    def predict(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Computes one batch.

        Args:
            inputs: each declared input, rows of all requests concatenated along axis 0. The
                arrays are read-only: when a batch fails, its parts are computed again from them.

        Returns:
            Each declared output, with the same number of rows in the same order.

        Raises:
            InvalidInput: a value is at fault; the batch is split, and only its request fails.
                The text reaches the client.
        """

    def warm_up(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Runs the configured example before the replica becomes ready.

        Override it for a runtime that needs more than one run until it is fast. What it returns
        is checked against the declared outputs.
        """
        return self.predict(inputs)

    def take_padding(self) -> tuple[int, int]:
        """Positions computed since the last call, padding included, and how many were padding.

        For models that pad, such as those of text; becomes a metric of the version.
        """
        return 0, 0

    @property
    def metadata(self) -> Mapping[str, str]:
        """Facts about the loaded model, such as its accuracy; shown to clients."""
        return {}

    def close(self) -> None:  # noqa: B027 - most predictors hold nothing to release
        """Releases what `load` took."""
