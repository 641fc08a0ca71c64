"""Who acts, wherever the command runs."""

from __future__ import annotations

import getpass
import os

import pytest

from deployments.admin import AdminClient
from deployments.terminal import user


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert user() == f"uid {os.getuid()}"


def test_any_name_fits_into_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "jörg")
    with AdminClient("http://127.0.0.1:9") as client:
        assert client._http.headers["x-actor"] == "j\\xf6rg"
