"""What is read from a call's headers."""

from __future__ import annotations

import pytest

from serve_app.errors import HeadersTooLarge, MalformedRequest, Unimplemented
from serve_app.grpc.head import CallHead, read_head

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/M")]
GRPC = (b"content-type", b"application/grpc")


def read(*pairs: tuple[bytes, bytes], method: bytes = b"POST") -> CallHead:
    return read_head([(b":method", method), *PSEUDO[1:], GRPC, *pairs], 16 * 1024)


def test_defaults() -> None:
    assert read()[:-2] == (b"/s/M", 200, None, None, b"identity", None, "")


def test_of_several_request_ids_the_first_counts() -> None:
    head = read((b"x-request-id", b"a-1"), (b"x-request-id", b"second"))
    assert head.request_id == b"a-1"


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"99999999n", 0.1)],
)
def test_timeouts(given: bytes, seconds: float) -> None:
    head = read((b"grpc-timeout", given))
    assert head.fault is None
    assert head.timeout_s == pytest.approx(seconds)


@pytest.mark.parametrize("given", [b"", b"S", b"1", b"1s", b"-1S", b"123456789S", b"1.5S", b"1S "])
def test_timeouts_that_are_none(given: bytes) -> None:
    assert isinstance(read((b"grpc-timeout", given)).fault, MalformedRequest)


@pytest.mark.parametrize("encoding", [b"identity", b"gzip", b"deflate"])
def test_encodings(encoding: bytes) -> None:
    head = read((b"grpc-encoding", encoding))
    assert (head.encoding, head.fault) == (encoding, None)


def test_an_unknown_encoding() -> None:
    assert isinstance(read((b"grpc-encoding", b"snappy")).fault, Unimplemented)


def test_metadata_above_the_cap() -> None:
    assert isinstance(read((b"x", b"y" * 17_000)).fault, HeadersTooLarge)


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        (b"application/grpc", 200),
        (b"application/grpc+proto", 200),
        (b"Application/gRPC;x=y", 200),
        (b"application/grpc+json", 415),
        (b"application/grpc-web", 415),
        (b"application/json", 415),
        (b"", 415),
    ],
)
def test_media_types(media_type: bytes, status: int) -> None:
    assert read_head([*PSEUDO, (b"content-type", media_type)], 16384).http_status == status


def test_other_methods() -> None:
    assert read(method=b"GET").http_status == 405


def test_trace_context() -> None:
    assert read((b"traceparent", TRACE.encode())).traceparent == TRACE


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
    ],
)
def test_trace_context_that_is_none(given: str) -> None:
    assert read((b"traceparent", given.encode())).traceparent == ""
