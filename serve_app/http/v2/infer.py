"""The hot path: one infer request, from its headers and body to the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.caller import UNKNOWN, Caller, HttpCaller
from serve_app.domain.inference import InferenceRequest
from serve_app.domain.raw_tensor import Buffer
from serve_app.domain.routing import ModelRoute
from serve_app.http.asgi import Receive
from serve_app.http.body import announced_length, read_body
from serve_app.http.errors import FALLBACK_FROM, Headers
from serve_app.http.head import check_media_type, header_timeout_s, shortest
from serve_app.http.v2.binary_plans import BinaryPlans
from serve_app.http.v2.infer_answer import HEADER_LENGTH, AnswerForm, InferAnswers
from serve_app.telemetry.sink import Telemetry
from serve_app.telemetry.trace import RequestTrace

_NAME = rb"[A-Za-z0-9._-]{1,128}"
_INFER_PATH = re.compile(rb"/v2/models/(%b)(?:/versions/(%b))?/infer(?:\?(.*))?" % (_NAME, _NAME))
_LONGEST_PATH = 300
"""What is longer never gets into the cache; only a query can make an infer path so long."""


class InferTarget(NamedTuple):
    """What the URL of an infer request names."""

    model: str
    version: str | None = None
    """Or a label; None if none is pinned."""
    query: bytes = b""
    """Without the question mark, as it was sent."""


def infer_target(path: bytes) -> InferTarget | None:
    """What an infer path names, as it was sent; None for every other path."""
    return _target(path) if len(path) <= _LONGEST_PATH else None


@lru_cache(maxsize=1024)
def _target(path: bytes) -> InferTarget | None:
    match = _INFER_PATH.fullmatch(path)
    if match is None:
        return None
    model, version, query = match.groups()
    pinned = None if version is None else version.decode()
    return InferTarget(model.decode(), pinned, query or b"")


def infer_path(target: InferTarget) -> str:
    """The path of a target, without its query."""
    pinned = "" if target.version is None else f"/versions/{target.version}"
    return f"/v2/models/{target.model}{pinned}/infer"


class InferHead(NamedTuple):
    """What the head of an infer request says."""

    route: ModelRoute
    version: str | None
    """The version in the path, if there is one."""
    timeout_s: float | None
    content_length: int
    """0 if it does not say."""
    json_length: bytes | None
    """The header Inference-Header-Content-Length."""
    caller: Caller


class InferEndpoint:
    """What one infer request takes, step by step; who reads and writes is another's affair."""

    def __init__(
        self, dataplane: DataPlane, http: HttpConfig, limits: RequestLimits, telemetry: Telemetry
    ) -> None:
        self.dataplane = dataplane
        self.telemetry = telemetry
        self.max_body = http.max_body_bytes
        self.answers = InferAnswers()
        self._plans = BinaryPlans(limits, http.max_json_depth)

    def admit(
        self, target: InferTarget, fields: Mapping[bytes, bytes], trace: RequestTrace
    ) -> InferHead:
        """Everything that can be refused by the head alone.

        Args:
            target: what the path names.
            fields: the request's headers, names in lower case.
            trace: what telemetry learns of this request.
        """
        model, version, query = target
        # Known before anything can fail, so that every failure is counted for its model.
        trace.model = self.dataplane.table.model(model).name
        route = self.dataplane.admit(model, version)
        check_media_type(fields)
        return InferHead(
            route,
            version,
            header_timeout_s(fields),
            announced_length(fields, self.max_body),
            fields.get(HEADER_LENGTH),
            HttpCaller(fields, query) if route.asks else UNKNOWN,
        )

    def decode(
        self, head: InferHead, body: Buffer, trace: RequestTrace
    ) -> tuple[InferenceRequest, AnswerForm]:
        """Reads the body.

        Returns:
            The request, and how its answer is to be written.
        """
        route = head.route
        call = self._plans.decode(body, head.json_length, route)
        timeout_s = head.timeout_s
        if call.timeout_s is not None:
            timeout_s = shortest(timeout_s, call.timeout_s)
        request = InferenceRequest(
            route.name,
            head.version,
            call.inputs,
            trace.request_id,
            timeout_s,
            call.outputs,
            call.layout,
            head.caller,
        )
        return request, call.form

    async def answer(
        self,
        target: InferTarget,
        fields: Mapping[bytes, bytes],
        receive: Receive,
        trace: RequestTrace,
    ) -> tuple[Headers, bytes]:
        """All of it for a request that came through the router of the other routes.

        Args:
            target: what the path names.
            fields: the request's headers, names in lower case.
            receive: where the body comes from.
            trace: what telemetry learns of this request.

        Returns:
            Headers and body of the 200.
        """
        head = self.admit(target, fields, trace)
        body = await read_body(receive, fields, self.max_body)
        request, form = self.decode(head, body, trace)
        result = await self.dataplane.infer(request, trace)
        lines, size, parts = self.answers.encode(result, form)
        named = [line.partition(b": ") for line in (lines + b"%d" % size).split(b"\r\n")]
        headers = [(name, value) for name, _, value in named]
        if trace.fallback_from:
            headers.append((FALLBACK_FROM, trace.fallback_from.encode()))
        return headers, b"".join(parts)
