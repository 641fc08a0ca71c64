"""The HTTP listener: a socket that several ingress replicas of a node may share."""

from __future__ import annotations

from serve_app.config.listener import HttpConfig
from serve_app.http.asgi import AsgiApp
from serve_app.http.connection import HttpConnection
from serve_app.http.listener_state import ListenerState
from serve_app.http.v2.infer import InferEndpoint
from serve_app.listening.listener import Listener
from serve_app.listening.port import Port


class HttpListener(Listener):
    """Serves an ASGI application."""

    _state: ListenerState

    def __init__(
        self,
        app: AsgiApp,
        http: HttpConfig,
        group: str = "http",
        infer: InferEndpoint | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            app: what is served.
            http: address, caps and time limits.
            group: the group of the config that sets the address, for messages.
            infer: answers infer requests past the application.
        """
        state = ListenerState(http)
        super().__init__(
            Port(http.host, http.port, http.backlog, group),
            state,
            lambda: HttpConnection(state, app, infer),
            min(*state.limits_s.values(), http.write_timeout_s),
        )
