"""The service `inference.GRPCInferenceService`: bytes in, bytes out.

Messages are parsed here and not by gRPC, so that bytes which are no message get the error that
they deserve; gRPC would call it an internal fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from serve_app.config.ingress import RequestLimits
from serve_app.dataplane import DataPlane
from serve_app.errors import (
    ClientGone,
    DeadlineExceeded,
    MalformedRequest,
    Overloaded,
    PayloadTooLarge,
)
from serve_app.grpc.answer import encode_response
from serve_app.grpc.call import Context, abort, caller, known
from serve_app.grpc.catalogue import Catalogue
from serve_app.grpc.convert import decode_request
from serve_app.grpc.errors import MODEL_VERSION, REQUEST_ID
from serve_app.grpc.generated import open_inference_pb2 as pb
from serve_app.grpc.wire import parse_request
from serve_app.public_error import OK
from serve_app.telemetry.sink import Telemetry
from serve_app.telemetry.trace import RequestTrace

SERVICE = "inference.GRPCInferenceService"

_SLACK_S = 0.01
_GATHER_S = 0.00005
"""Per call in work: grpc.aio hands them over one by one, some hundred µs apart, so that a queue
which sent each at once would send batches of one."""
_LONGEST_GATHER_S = 0.002

_Request = TypeVar("_Request", bound=Message)
_Handler = Callable[[bytes, Context], Awaitable[bytes]]


class Servicer:
    """Answers the RPCs of one listener."""

    def __init__(
        self,
        dataplane: DataPlane,
        limits: RequestLimits,
        telemetry: Telemetry,
        *,
        max_concurrent: int,
        max_message_bytes: int,
    ) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._telemetry = telemetry
        self._max_concurrent = max_concurrent
        self._max_message_bytes = max_message_bytes
        self._catalogue = Catalogue(dataplane)
        self._active = 0

    def handlers(self) -> grpc.GenericRpcHandler:
        """What `grpc.aio.Server` needs to call this servicer."""
        catalogue = self._catalogue
        methods: dict[str, _Handler] = {
            "ModelInfer": self.model_infer,
            "ServerLive": self._unary(pb.ServerLiveRequest, catalogue.server_live),
            "ServerReady": self._unary(pb.ServerReadyRequest, catalogue.server_ready),
            "ModelReady": self._unary(pb.ModelReadyRequest, catalogue.model_ready),
            "ServerMetadata": self._unary(pb.ServerMetadataRequest, catalogue.server_metadata),
            "ModelMetadata": self._unary(pb.ModelMetadataRequest, catalogue.model_metadata),
            "RepositoryIndex": self._unary(pb.RepositoryIndexRequest, catalogue.repository_index),
            "RepositoryModelLoad": self._unary(
                pb.RepositoryModelLoadRequest, catalogue.refuse_change
            ),
            "RepositoryModelUnload": self._unary(
                pb.RepositoryModelUnloadRequest, catalogue.refuse_change
            ),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {name: grpc.unary_unary_rpc_method_handler(each) for name, each in methods.items()},
        )

    async def model_infer(self, data: bytes, context: Context) -> bytes:
        """Computes one request. Cancelling the RPC cancels this coroutine, and so the work."""
        client = caller(context)
        trace = RequestTrace("grpc", client.request_id)
        trace.traceparent = client.traceparent
        try:
            answer = await self._infer(data, context, trace)
        except asyncio.CancelledError:
            gone = DeadlineExceeded if _is_late(context) else ClientGone
            self._telemetry.finish(trace, gone.status, gone.code)
            raise
        except Exception as exc:
            await self._fail(exc, context, trace)
        # The answer names the version as well. Trailers that nobody looks for cost 20 µs in here,
        # and a good deal of the client's time.
        if client.named:
            context.set_trailing_metadata(
                ((REQUEST_ID, trace.request_id), (MODEL_VERSION, trace.version))
            )
        self._telemetry.finish(trace, 200, OK)
        return answer

    async def _infer(self, data: bytes, context: Context, trace: RequestTrace) -> bytes:
        if self._active >= self._max_concurrent:
            raise Overloaded(f"{self._active} requests are being worked on")
        self._active += 1
        try:
            message, raw = parse_request(data)
            # Known before anything can fail, so that every failure is counted for its model.
            trace.model = self._dataplane.table.model(message.model_name).name
            self._dataplane.admit(trace.model, message.model_version or None)
            request = decode_request(
                message, raw, trace.request_id, context.time_remaining(), self._limits
            )
            gather_s = min(_GATHER_S * (self._active - 1), _LONGEST_GATHER_S)
            result = await self._dataplane.infer(request, trace, gather_s)
            answer = encode_response(result, message.id, typed=not raw)
        finally:
            self._active -= 1
        if len(answer) > self._max_message_bytes:
            raise PayloadTooLarge(
                f"the answer has {len(answer)} bytes, more than the allowed "
                f"{self._max_message_bytes}"
            )
        return answer

    def _unary(self, request: type[_Request], answer: Callable[[_Request], Message]) -> _Handler:
        async def handle(data: bytes, context: Context) -> bytes:
            client = caller(context)
            trace = RequestTrace("grpc", client.request_id)
            try:
                response = answer(_parse(request, data)).SerializeToString()
            except Exception as exc:
                await self._fail(exc, context, trace)
            if client.named:
                context.set_trailing_metadata(((REQUEST_ID, trace.request_id),))
            self._telemetry.finish(trace, 200, OK)
            return response

        return handle

    async def _fail(self, exc: Exception, context: Context, trace: RequestTrace) -> NoReturn:
        error = known(exc, trace.request_id)
        self._telemetry.finish(trace, error.status, error.code)
        await abort(context, error, trace.request_id, trace.version)


def _is_late(context: Context) -> bool:
    """Whether the deadline has passed, perhaps by the client's clock, which is not ours."""
    remaining_s = context.time_remaining()
    return remaining_s is not None and remaining_s < _SLACK_S


def _parse(message: type[_Request], data: bytes) -> _Request:
    try:
        return message.FromString(data)
    except DecodeError as exc:
        raise MalformedRequest(f"the bytes are not a {message.DESCRIPTOR.name}") from exc
