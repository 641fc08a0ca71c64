"""The hot path: one infer request, from its headers and body to the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.inference import InferenceRequest
from serve_app.http.asgi import Receive
from serve_app.http.body import read_body
from serve_app.http.errors import REQUEST_ID, Headers
from serve_app.http.head import check_media_type, header_timeout_s, shortest
from serve_app.http.v2.infer_answer import HEADER_LENGTH, encode_infer
from serve_app.http.v2.infer_request import decode_infer
from serve_app.telemetry.trace import RequestTrace

_NAME = "[A-Za-z0-9._-]{1,128}"
_INFER_PATH = re.compile(rf"/v2/models/({_NAME})(?:/versions/({_NAME}))?/infer", re.ASCII)
_LONGEST_PATH = 300
"""No infer path is longer; what is longer never gets into the cache."""


def infer_target(path: str) -> tuple[str, str | None] | None:
    """Model and pinned version of an infer path; None for every other path."""
    return _target(path) if len(path) <= _LONGEST_PATH else None


@lru_cache(maxsize=1024)
def _target(path: str) -> tuple[str, str | None] | None:
    match = _INFER_PATH.fullmatch(path)
    return None if match is None else (match[1], match[2])


class InferEndpoint:
    """Answers infer requests."""

    def __init__(self, dataplane: DataPlane, http: HttpConfig, limits: RequestLimits) -> None:
        self._dataplane = dataplane
        self._max_body = http.max_body_bytes
        self._max_depth = http.max_json_depth
        self._limits = limits

    async def answer(
        self,
        model: str,
        version: str | None,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        trace: RequestTrace,
    ) -> tuple[Headers, bytes]:
        """Reads the request, has it computed, and writes the answer.

        Whatever can be refused by the head alone is refused before the body is read.

        Args:
            model: the model's name in the path.
            version: the version in the path, if there is one.
            headers: the request's headers, names in lower case.
            receive: where the body comes from.
            trace: what telemetry learns of this request.

        Returns:
            Headers and body of the 200.
        """
        # Known before anything can fail, so that every failure is counted for its model.
        trace.model = self._dataplane.table.model(model).name
        route = self._dataplane.admit(model, version)
        check_media_type(headers)
        timeout_s = header_timeout_s(headers)
        body = await read_body(receive, headers, self._max_body)
        call = decode_infer(body, headers.get(HEADER_LENGTH), route, self._limits, self._max_depth)
        if call.timeout_s is not None:
            timeout_s = shortest(timeout_s, call.timeout_s)
        result = await self._dataplane.infer(
            InferenceRequest(
                model, version, call.inputs, trace.request_id, timeout_s, call.outputs
            ),
            trace,
        )
        described, payload = encode_infer(result, call.form)
        described += (
            (REQUEST_ID, trace.request_id.encode()),
            (b"x-model-version", result.version.encode()),
        )
        return described, payload
