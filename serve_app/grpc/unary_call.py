"""Calls that are answered at once, since nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import MalformedRequest
from serve_app.grpc.call import Call, CallSettings
from serve_app.grpc.errors import REQUEST_ID
from serve_app.grpc.head import CallHead
from serve_app.http2.outlet import Outlet

Request = TypeVar("Request", bound=Message)


class UnaryCall(Call):
    """Answers with what a function makes of the request."""

    __slots__ = ("_answer", "_request")

    def __init__(
        self,
        outlet: Outlet,
        stream_id: int,
        head: CallHead,
        settings: CallSettings,
        request: type[Message],
        answer: Callable[[Any], Message],
    ) -> None:
        super().__init__(outlet, stream_id, head, settings)
        self._request = request
        self._answer = answer

    def on_message(self, message: Buffer) -> None:
        """See `Call`."""
        response = self._answer(parse(self._request, message)).SerializeToString()
        self.reply(response, ((REQUEST_ID, self.trace.request_id),))


def parse(kind: type[Request], data: Buffer) -> Request:
    """Reads a message.

    Raises:
        MalformedRequest: the bytes are not such a message.
    """
    try:
        return kind.FromString(bytes(data))
    except DecodeError as exc:
        raise MalformedRequest(f"the bytes are not a {kind.DESCRIPTOR.name}") from exc
