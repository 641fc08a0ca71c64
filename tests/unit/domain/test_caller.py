"""What callers say about themselves, over HTTP and over gRPC."""

from __future__ import annotations

import pytest

from serve_app.domain.caller import UNKNOWN, Caller, HttpCaller, MetadataCaller, sticky_value
from serve_app.domain.release import Sticky

HTTP = HttpCaller(
    {
        b"x-user": b"J\xf6rg",
        b"cookie": b'theme=dark; uid=42; q="quoted"; empty=; broken',
        b"authorization": b"Bearer  abc ",
        b"x-tenant-id": b"acme",
    },
    b"cohort=beta&cohort=alpha&text=a%20b+c&flag=&bad=%ff",
)


def test_headers() -> None:
    assert HTTP.header("x-user") == "Jörg"
    assert HTTP.header("x-other") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uid", "42"),
        ("theme", "dark"),
        ("q", "quoted"),
        ("empty", ""),
        ("broken", None),
        ("x", None),
    ],
)
def test_cookies(name: str, value: str | None) -> None:
    assert HTTP.cookie(name) == value
    assert MetadataCaller({"cookie": HTTP.header("cookie") or ""}).cookie(name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [("cohort", "beta"), ("text", "a b c"), ("flag", ""), ("bad", "\ufffd"), ("x", None)],
)
def test_queries(name: str, value: str | None) -> None:
    assert HTTP.query(name) == value


def test_who_says_nothing() -> None:
    silent: list[Caller] = [UNKNOWN, HttpCaller({}, b""), MetadataCaller({})]
    for caller in silent:
        assert (caller.header("a"), caller.cookie("a"), caller.query("a")) == (None, None, None)


@pytest.mark.parametrize(
    ("sticky", "value"),
    [
        (Sticky(by="header", name="x-user"), "Jörg"),
        (Sticky(by="cookie", name="uid"), "42"),
        (Sticky(by="tenant"), "acme"),
        (Sticky(by="api_key"), "abc"),
    ],
)
def test_what_an_assignment_sticks_to(sticky: Sticky, value: str) -> None:
    assert sticky_value(sticky.by, sticky.name or "", HTTP) == value
    assert not sticky_value(sticky.by, sticky.name or "", UNKNOWN)


def test_an_api_key_is_a_header_or_a_bearer_token() -> None:
    sticky = Sticky(by="api_key")
    both = {"x-api-key": "k", "authorization": "Bearer t"}
    assert sticky_value(sticky.by, sticky.name or "", MetadataCaller(both)) == "k"
    assert (
        sticky_value(sticky.by, sticky.name or "", MetadataCaller({"authorization": "bearer t"}))
        == "t"
    )
    assert (
        sticky_value(sticky.by, sticky.name or "", MetadataCaller({"authorization": "Basic t"}))
        is None
    )
