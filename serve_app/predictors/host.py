"""The host of a predictor inside a replica: loads it, feeds it batches, keeps failures apart."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from serve_app.config.model import PredictorConfig
from serve_app.domain.inference import BatchResult, Failure, InferenceBatch
from serve_app.domain.tensor import Array
from serve_app.errors import ArtifactError, ModelFailed, NotReady, PredictorError
from serve_app.load_meter import LoadMeter
from serve_app.predictors.build import build_predictor
from serve_app.predictors.compute_thread import ComputeThread
from serve_app.predictors.isolation import compute_isolated
from serve_app.predictors.predictor import LoadContext, Predictor
from serve_app.predictors.signature import checked_outputs, example_arrays

logger = logging.getLogger(__name__)


class PredictorHost:
    """Owns one predictor and the one thread in which it loads and computes.

    Args:
        name: names the thread, such as ``digits@2``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = ComputeThread(f"compute-{name}")
        self.meter = LoadMeter()
        self._predictor: Predictor | None = None
        self._context: LoadContext | None = None
        self._batchable = True
        self._closed = False

    def load(
        self,
        config: PredictorConfig,
        context: LoadContext,
        warm_up: Mapping[str, Any] | None = None,
    ) -> None:
        """Builds, loads and warms up; blocks until the predictor may take batches.

        Args:
            config: the class and its arguments.
            context: artifact, device, threads and signature.
            warm_up: example data, input name -> nested values; empty: no warm-up.

        Raises:
            PredictorError: any of the three failed, or the example's outputs are not the declared
                ones.
        """
        try:
            self._thread.run_blocking(None, self._load, config, context, warm_up or {})
        except BaseException:
            self.close()
            raise

    async def run(self, batch: InferenceBatch) -> BatchResult:
        """Computes one batch; every member gets its rows in the outputs or a Failure.

        Members whose budget (counted from this call) has passed when the model would begin fail
        with ``deadline_exceeded``; what a model raises fails the guilty members only. If no member
        succeeds, `outputs` is empty. A caller may be cancelled at any time. More than
        `batch.slice_rows` rows are computed in several steps, unless the model has no batch
        dimension.

        Raises:
            NotReady: not loaded, or closed.
        """
        if self._predictor is None or self._closed:
            raise NotReady(f"{self._name} is not loaded")
        self.meter.arrived(None, sum(batch.rows), batch.backlog)
        try:
            return await self._thread.run(self.compute, batch, time.monotonic())
        finally:
            self.meter.left()

    def compute(self, batch: InferenceBatch, received: float) -> BatchResult:
        """What `run` does, for the compute thread itself.

        Args:
            batch: the members.
            received: the `time.monotonic()` from which their budgets count.
        """
        self.meter.begins(time.monotonic() - received)
        try:
            return self._compute(batch, received)
        finally:
            self.meter.ends()

    @property
    def worker(self) -> ComputeThread:
        """The thread that computes, for the direct channel."""
        return self._thread

    def stuck_for_s(self) -> float:
        """How long the current step of a computation has been running; 0.0 when idle."""
        return self._thread.busy_for_s()

    def describe(self) -> dict[str, str]:
        """Facts about the loaded model, and the device that it computes on."""
        if self._predictor is None or self._context is None:
            return {}
        return {"device": self._context.device, **self._predictor.metadata}

    def close(self, timeout_s: float = 5.0) -> None:
        """Lets queued batches finish, closes the predictor, ends the thread. May be repeated.

        A computation that takes longer than `timeout_s` is left alone: its thread is a daemon.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._thread.run_blocking(timeout_s, self._close_predictor)
        except TimeoutError:
            logger.warning("%s still computes, left behind", self._name, extra={"action": "close"})
        self._thread.stop(timeout_s=0.0 if self._thread.busy_for_s() else timeout_s)

    def _load(
        self, config: PredictorConfig, context: LoadContext, warm_up: Mapping[str, Any]
    ) -> None:
        predictor = build_predictor(config)
        specs = (*context.inputs, *context.outputs)
        self._batchable = all(spec.shape[:1] == (-1,) for spec in specs)
        try:
            predictor.load(context)
            self._predictor, self._context = predictor, context
            if warm_up:
                self._warm_up(predictor, context, warm_up)
            predictor.take_padding()  # of no request
        except (PredictorError, ArtifactError):
            raise
        except (Exception, SystemExit) as exc:
            raise PredictorError(
                f"{config.target} could not be loaded: {type(exc).__name__}: {exc}"
            ) from exc

    def _warm_up(
        self, predictor: Predictor, context: LoadContext, example: Mapping[str, Any]
    ) -> None:
        inputs, rows = example_arrays(example, context.inputs)
        try:
            outputs = predictor.warm_up(_frozen(inputs))
            checked_outputs(outputs, context.outputs, rows if self._batchable else None)
        except ModelFailed as exc:
            raise PredictorError(f"the warm-up does not fit the declared outputs: {exc}") from exc
        except (Exception, SystemExit) as exc:
            raise PredictorError(f"the warm-up failed: {type(exc).__name__}: {exc}") from exc

    def _compute(self, batch: InferenceBatch, received: float) -> BatchResult:
        started = time.monotonic()
        predictor, context = self._predictor, self._context
        if predictor is None or context is None:  # closed while the batch was in the queue
            failure = Failure(NotReady.code, f"{self._name} is not loaded")
            return BatchResult({}, dict.fromkeys(range(len(batch.rows)), failure), 0.0)
        if batch.slice_rows and not self._batchable:
            batch = batch._replace(slice_rows=0)

        def compute(inputs: Mapping[str, Array], rows: int) -> Mapping[str, Array]:
            # A batch of many steps is not stuck; one step that does not end is.
            self._thread.restart_clock()
            outputs = predictor.predict(_frozen(inputs))
            return checked_outputs(outputs, context.outputs, rows if self._batchable else None)

        outputs, failures = compute_isolated(batch, compute, lambda: time.monotonic() - received)
        compute_s = time.monotonic() - started
        tokens, padding = predictor.take_padding()
        return BatchResult(outputs, failures, compute_s, tokens=tokens, padding=padding)

    def _close_predictor(self) -> None:
        predictor, self._predictor = self._predictor, None
        if predictor is not None:
            try:
                predictor.close()
            except Exception:
                logger.exception("%s failed to close", self._name, extra={"action": "close"})


def _frozen(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Read-only views: what one attempt does must not change the inputs of the next one."""
    frozen = {name: array.view() for name, array in inputs.items()}
    for view in frozen.values():
        view.flags.writeable = False
    return frozen
