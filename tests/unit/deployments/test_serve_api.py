"""Ray's API when it does not answer."""

from __future__ import annotations

import socket

import pytest

from deployments.serve_api import ServeApi
from serve_app.errors import ClusterError


def test_a_cluster_that_is_gone_is_an_error_of_ours() -> None:
    with (
        ServeApi("http://127.0.0.1:9", "t") as api,
        pytest.raises(ClusterError, match="does not answer"),
    ):
        api.delete(1.0)


def test_to_remove_everything_may_take_longer_than_one_answer() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        ServeApi(f"http://127.0.0.1:{silent.getsockname()[1]}", "t") as api,
    ):
        api.delete(0.05)
