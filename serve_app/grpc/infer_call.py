"""One ModelInfer call, from its message to its answer, without a task, a future or an event.

As over HTTP (decision 8): everything here runs in callbacks of the event loop, the connection's,
and the data plane's when the result has come.
"""

from __future__ import annotations

from serve_app.config.ingress import RequestLimits
from serve_app.dataplane import DataPlane
from serve_app.domain.inference import InferenceResult
from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import Overloaded, PayloadTooLarge, ServeAppError
from serve_app.grpc.answer import encode_response
from serve_app.grpc.call import Call, CallSettings
from serve_app.grpc.convert import decode_request
from serve_app.grpc.errors import FALLBACK_FROM, MODEL_VERSION, REQUEST_ID, Metadata
from serve_app.grpc.head import CallHead
from serve_app.grpc.wire import parse_request
from serve_app.http2.frames import ErrorCode
from serve_app.http2.outlet import Outlet
from serve_app.ticket import Ticket


class Inference:
    """What all ModelInfer calls of a listener share."""

    def __init__(self, dataplane: DataPlane, limits: RequestLimits, max_concurrent: int) -> None:
        self.dataplane = dataplane
        self.limits = limits
        self.max_concurrent = max_concurrent
        self.active = 0


class InferCall(Call):
    """Hands a request to the data plane, and writes what comes back."""

    __slots__ = ("_identifier", "_inference", "_ticket", "_typed")

    def __init__(
        self,
        outlet: Outlet,
        stream_id: int,
        head: CallHead,
        settings: CallSettings,
        inference: Inference,
    ) -> None:
        super().__init__(outlet, stream_id, head, settings)
        self._inference = inference
        self._ticket: Ticket | None = None
        self._identifier = ""
        self._typed = False

    def on_message(self, message: Buffer) -> None:
        """See `Call`."""
        inference, trace = self._inference, self.trace
        if inference.active >= inference.max_concurrent:
            raise Overloaded(f"{inference.active} requests are being worked on")
        dataplane = inference.dataplane
        parsed, raw = parse_request(message)
        # Known before anything can fail, so that every failure is counted for its model.
        trace.model = dataplane.table.model(parsed.model_name).name
        dataplane.admit(trace.model, parsed.model_version or None)
        request = decode_request(
            parsed, raw, trace.request_id, self.remaining_s, inference.limits, self.head.caller
        )
        self._identifier = parsed.id
        self._typed = not raw
        self._ticket = dataplane.start(request, trace, self._settle)
        inference.active += 1

    def on_cancel(self) -> None:
        """See `Call`."""
        if self._ticket is not None:
            self._inference.active -= 1
            self._ticket.cancel()
            self._ticket = None

    def _settle(self, result: InferenceResult | None, error: ServeAppError | None) -> None:
        self._inference.active -= 1
        self._ticket = None
        try:
            if result is None:
                self.fail(error or ServeAppError())
            else:
                self._answer(result)
        except Exception:
            self.close_with(ErrorCode.INTERNAL_ERROR)
            raise

    def _answer(self, result: InferenceResult) -> None:
        cap = self.settings.max_message_bytes
        try:
            answer = encode_response(result, self._identifier, typed=self._typed)
            if len(answer) > cap:
                raise PayloadTooLarge(
                    f"the answer has {len(answer)} bytes, more than the allowed {cap}"
                )
        except Exception as exc:
            self.fail(exc)
            return
        trace = self.trace
        trailers: Metadata = ((REQUEST_ID, trace.request_id), (MODEL_VERSION, trace.version))
        if trace.fallback_from:
            trailers += ((FALLBACK_FROM, trace.fallback_from),)
        self.reply(answer, trailers)
