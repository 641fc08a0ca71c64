"""Which call answers which path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import GrpcConfig
from serve_app.dataplane import DataPlane
from serve_app.grpc.call import Call, CallSettings, UnknownCall
from serve_app.grpc.catalogue import Catalogue
from serve_app.grpc.generated import open_inference_pb2 as pb
from serve_app.grpc.head import CallHead, read_head
from serve_app.grpc.health import HEALTH, Health, WatchCall
from serve_app.grpc.infer_call import InferCall, Inference
from serve_app.grpc.names import SERVICE
from serve_app.grpc.unary_call import UnaryCall
from serve_app.http2.headers import Headers
from serve_app.http2.limits import Limits
from serve_app.http2.outlet import Outlet
from serve_app.telemetry.sink import NullTelemetry, Telemetry

_Make = Callable[[Outlet, int, CallHead], Call]


class Service:
    """The services of one listener."""

    def __init__(
        self,
        dataplane: DataPlane,
        config: GrpcConfig,
        limits: RequestLimits,
        telemetry: Telemetry,
        connection: Limits,
    ) -> None:
        self.health = Health(dataplane)
        self._max_header_bytes = connection.max_header_bytes
        self._settings = CallSettings(telemetry, config.max_message_bytes)
        self._unheard = CallSettings(NullTelemetry(), config.max_message_bytes)
        self._inference = Inference(dataplane, limits, config.max_concurrent_rpcs)
        self._methods = self._table(Catalogue(dataplane))

    def interpret(self, headers: Headers) -> CallHead:
        """See `Application`."""
        return read_head(headers, self._max_header_bytes)

    def stream(self, outlet: Outlet, stream_id: int, head: CallHead) -> Call:
        """See `Application`."""
        make = self._methods.get(head.path)
        if make is None or head.http_status != 200:
            return UnknownCall(outlet, stream_id, head, self._settings)
        return make(outlet, stream_id, head)

    def _table(self, catalogue: Catalogue) -> dict[bytes, _Make]:
        def unary(
            request: type[Message],
            answer: Callable[[Any], Message],
            settings: CallSettings = self._settings,
        ) -> _Make:
            return lambda outlet, number, head: UnaryCall(
                outlet, number, head, settings, request, answer
            )

        ours: dict[str, _Make] = {
            "ModelInfer": lambda outlet, number, head: InferCall(
                outlet, number, head, self._settings, self._inference
            ),
            "ServerLive": unary(pb.ServerLiveRequest, catalogue.server_live),
            "ServerReady": unary(pb.ServerReadyRequest, catalogue.server_ready),
            "ModelReady": unary(pb.ModelReadyRequest, catalogue.model_ready),
            "ServerMetadata": unary(pb.ServerMetadataRequest, catalogue.server_metadata),
            "ModelMetadata": unary(pb.ModelMetadataRequest, catalogue.model_metadata),
            "RepositoryIndex": unary(pb.RepositoryIndexRequest, catalogue.repository_index),
            "RepositoryModelLoad": unary(pb.RepositoryModelLoadRequest, catalogue.refuse_change),
            "RepositoryModelUnload": unary(
                pb.RepositoryModelUnloadRequest, catalogue.refuse_change
            ),
        }
        # Probes are not requests: telemetry does not hear of them.
        probes: dict[str, _Make] = {
            "Check": unary(HealthCheckRequest, self.health.check, self._unheard),
            "Watch": lambda outlet, number, head: WatchCall(
                outlet, number, head, self._unheard, self.health
            ),
        }
        services = ((SERVICE, ours), (HEALTH, probes))
        return {
            f"/{service}/{method}".encode(): make
            for service, methods in services
            for method, make in methods.items()
        }
