"""One infer request, from its head to its answer, without a task, a future or an event.

Decision 8 has the numbers. Everything here runs in callbacks of the event loop: the parser's, and
the data plane's when the result has come.
"""

from __future__ import annotations

from collections.abc import Mapping

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from serve_app.context import current_request
from serve_app.domain.inference import InferenceResult
from serve_app.domain.raw_tensor import Buffer
from serve_app.domain.request_id import request_id
from serve_app.errors import ClientGone, ServeAppError
from serve_app.http.body import body_too_large
from serve_app.http.body_intake import LARGE, BodyIntake
from serve_app.http.errors import FALLBACK_FROM, REQUEST_ID, as_serve_app_error, error_response
from serve_app.http.exchange import CLOSE, Exchange, Line, send_together, write_head
from serve_app.http.head import trace_context
from serve_app.http.v2.infer import InferEndpoint, InferHead, InferTarget, infer_path
from serve_app.http.v2.infer_answer import AnswerForm
from serve_app.public_error import OK
from serve_app.telemetry.trace import RequestTrace
from serve_app.ticket import Ticket


class InferExchange(Exchange):
    """Reads the body, hands the request to the data plane, and writes what comes back.

    What the head decides is known before the body is read. A refusal is said at the end of what was
    read at once: if the body is part of that, the connection can go on.
    """

    __slots__ = (
        "_chunks",
        "_endpoint",
        "_fields",
        "_form",
        "_head",
        "_intake",
        "_refusal",
        "_target",
        "_ticket",
        "_trace",
    )

    _form: AnswerForm
    _head: InferHead

    def __init__(
        self,
        line: Line,
        endpoint: InferEndpoint,
        target: InferTarget,
        fields: Mapping[bytes, bytes],
        *,
        keep_alive: bool,
        awaits_continue: bool,
    ) -> None:
        # Not `super().__init__`: this runs once per request.
        self._line = line
        self._listener = line.server_state
        self._held = 0
        self._awaits_continue = awaits_continue
        self.keep_alive = keep_alive
        self.more_body = True
        self.response_complete = False
        self._endpoint = endpoint
        self._target = target
        self._fields = fields
        self._trace: RequestTrace | None = None  # set when it is this request's turn
        self._chunks: list[bytes] = []
        self._intake: BodyIntake | None = None
        self._refusal: Exception | None = None
        self._ticket: Ticket | None = None

    # The request

    def start(self) -> None:
        """See `Exchange`."""
        fields = self._fields
        trace = self._trace = RequestTrace("http", request_id(fields.get(REQUEST_ID)))
        if b"traceparent" in fields:
            trace.traceparent = trace_context(fields)
        try:
            self._head = self._endpoint.admit(self._target, fields, trace)
        except Exception as exc:
            self._refuse(exc)
        if not self.more_body:
            self._compute(trace)

    def feed(self, chunk: bytes) -> None:
        """See `Exchange`."""
        if self._refusal is not None or self.response_complete:
            return
        self.hold(len(chunk))
        self._chunks.append(chunk)
        if self._held > self._endpoint.max_body:
            self._refuse(body_too_large(self._endpoint.max_body))
        elif self._trace is None and self._held > HIGH_WATER_LIMIT:
            self._line.flow.pause_reading()

    def complete(self) -> None:
        """See `Exchange`."""
        self.more_body = False
        if self._trace is not None:
            self._compute(self._trace)

    def fail(self, fault: ServeAppError) -> None:
        """See `Exchange`."""
        self.keep_alive = False
        if self._trace is not None:
            self._forget()
            self._answer_error(self._refusal or fault, self._trace)

    def stall(self) -> None:
        """See `Exchange`."""
        if self._refusal is not None and self._trace is not None:
            self._answer_error(self._refusal, self._trace)
            return
        self._ask()
        length = self._head.content_length
        if self._held >= LARGE and length - self._held >= LARGE and self._intake is None:
            self._intake = BodyIntake(self._line, self, length, self._chunks)
            self._chunks = []

    def disconnect(self) -> None:
        """See `Exchange`."""
        if self._trace is not None and not self.response_complete:
            if self._ticket is not None:
                self._ticket.cancel()
                self._ticket = None
            self._endpoint.telemetry.finish(self._trace, ClientGone.status, ClientGone.code)
        self.response_complete = True
        self._forget()

    def _refuse(self, error: Exception) -> None:
        """Remembers why this request is not computed; nothing of its body is needed."""
        self._refusal = error
        self._forget()

    def _forget(self) -> None:
        """Gives back what has come of the body."""
        self._chunks = []
        self._intake = None
        self.release()

    def _body(self) -> Buffer:
        """The whole body, which this exchange does not need any more."""
        intake, chunks = self._intake, self._chunks
        self._chunks = []
        if intake is not None:
            self._intake = None
            return intake.body
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _compute(self, trace: RequestTrace) -> None:
        if self._refusal is not None:
            self._answer_error(self._refusal, trace)
            return
        endpoint = self._endpoint
        try:
            request, self._form = endpoint.decode(self._head, self._body(), trace)
            self._ticket = endpoint.dataplane.start(request, trace, self._settle)
        except Exception as exc:
            self._answer_error(exc, trace)

    # The response

    def _settle(self, result: InferenceResult | None, error: ServeAppError | None) -> None:
        self._ticket = None
        trace = self._trace
        if trace is None:  # nothing is started without one
            return
        try:
            if result is None:
                self._answer_error(error or ServeAppError(), trace)
            else:
                self._answer(result, trace)
        except Exception:
            self._line.transport.abort()
            raise

    def _answer(self, result: InferenceResult, trace: RequestTrace) -> None:
        try:
            lines, size, parts = self._endpoint.answers.encode(result, self._form)
        except Exception as exc:
            self._answer_error(exc, trace)
            return
        listener = self._listener
        if listener.draining:
            self.keep_alive = False
        # Ids and versions are of patterns that hold no line break.
        more = b"" if self.keep_alive else CLOSE
        if trace.fallback_from:
            more += b"%b: %b\r\n" % (FALLBACK_FROM, trace.fallback_from.encode())
        head = b"%b%b%d\r\nx-request-id: %b\r\n%b\r\n" % (
            listener.ok,
            lines,
            size,
            trace.request_id.encode(),
            more,
        )
        send_together(self._line.transport, head, parts, size)
        self._endpoint.telemetry.finish(trace, 200, OK)
        self._finish()

    def _answer_error(self, exc: Exception, trace: RequestTrace) -> None:
        token = current_request.set(trace)
        try:
            error = as_serve_app_error(exc, trace.request_id)
        finally:
            current_request.reset(token)
        if self.more_body or self._listener.draining:
            self.keep_alive = False
        path = infer_path(self._target)
        status, headers, body = error_response(error, path, trace.request_id, trace.version)
        more = () if self.keep_alive else (CLOSE,)
        head = write_head(status, headers, self._listener.date, *more)
        send_together(self._line.transport, head, [body], len(body))
        self._endpoint.telemetry.finish(trace, status, error.code)
        self._finish()
