"""What is read from a client's metadata."""

from __future__ import annotations

from typing import Any, cast

import pytest

from serve_app.grpc.call import Caller, Context, caller

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Metadata:
    def __init__(self, *pairs: tuple[str, Any]) -> None:
        self._pairs = pairs

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...] | None:
        return self._pairs or None


def read(*pairs: tuple[str, Any]) -> Caller:
    return caller(cast(Context, Metadata(*pairs)))


def test_without_metadata_the_id_is_new_and_nobody_looks_for_it() -> None:
    first, second = read(), read(("user-agent", "x"))
    assert len(first.request_id) == 32
    assert first.request_id != second.request_id
    assert not first.named
    assert first.traceparent == ""


@pytest.mark.parametrize(("given", "kept"), [("a-1", True), ("", False), ("two words", False)])
def test_an_id_in_the_metadata_is_looked_for_even_if_it_is_replaced(given: str, kept: bool) -> None:
    found = read(("x-request-id", given), ("x-request-id", "second"))
    assert found.named
    assert (found.request_id == given) is kept
    assert found.request_id != "second"


def test_trace_context() -> None:
    assert read(("traceparent", TRACE), ("x-request-id", "a")).traceparent == TRACE


@pytest.mark.parametrize(
    "given",
    [
        "",
        TRACE + "-x",
        TRACE[:-1],
        TRACE.upper(),
        "01" + TRACE[2:],
        TRACE + "\n",
        TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACE.replace("00f067aa0ba902b7", "0" * 16),
        TRACE.encode(),
    ],
)
def test_trace_context_that_is_none(given: str | bytes) -> None:
    assert read(("traceparent", given)).traceparent == ""
