"""What the HTTP port serves: infer requests by themselves, everything else by FastAPI."""

from __future__ import annotations

from serve_app.config.ingress import RequestLimits
from serve_app.config.listener import HttpConfig
from serve_app.dataplane import DataPlane
from serve_app.domain.control import Control
from serve_app.domain.deployer import Deployer
from serve_app.http.asgi import AsgiApp, Receive, Scope, Send
from serve_app.http.rest import create_rest
from serve_app.http.v2.infer import InferEndpoint
from serve_app.telemetry.sink import Telemetry


def create_app(
    dataplane: DataPlane,
    http: HttpConfig,
    limits: RequestLimits,
    telemetry: Telemetry,
    control: Control | None = None,
    deployer: Deployer | None = None,
) -> Application:
    """Builds what a listener serves.

    Args:
        dataplane: computes inference requests.
        http: caps on bodies and JSON, and whether documentation is served.
        limits: caps on each inference request.
        telemetry: hears of every finished request.
        control: changes releases and takes outcomes; without it there are no routes for that.
        deployer: plans and applies whole deployments; likewise.
    """
    infer = InferEndpoint(dataplane, http, limits, telemetry)
    return Application(create_rest(dataplane, http, telemetry, infer, control, deployer), infer)


class Application:
    """An ASGI application that serves every route, and the endpoint of the hot ones beside it.

    A listener that is given `infer` as well answers infer requests without ASGI: a FastAPI route
    alone costs more than all the rest of such a request.
    """

    def __init__(self, rest: AsgiApp, infer: InferEndpoint) -> None:
        self._rest = rest
        self.infer = infer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        await self._rest(scope, receive, send)
