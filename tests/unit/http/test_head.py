"""What headers say: ids, deadlines, media types."""

from __future__ import annotations

import pytest

from serve_app.domain.request_id import request_id
from serve_app.errors import MalformedRequest, UnsupportedMediaType
from serve_app.http.head import check_media_type, header_timeout_s, shortest


@pytest.mark.parametrize("given", [b"a", b"A-b_c.d:1", b"x" * 128])
def test_a_safe_request_id_is_kept(given: bytes) -> None:
    assert request_id(given) == given.decode()


@pytest.mark.parametrize(
    "given",
    [None, b"", b"x" * 129, b"a b", b"a\n", b"a\r\nx: y", b"\xff", b'"', b"/"],
)
def test_any_other_is_replaced(given: bytes | None) -> None:
    made = request_id(given)
    assert len(made) == 32
    assert request_id(made.encode()) == made
    assert request_id(given) != made


def test_the_deadline_is_in_milliseconds() -> None:
    assert header_timeout_s({}) is None
    assert header_timeout_s({b"x-request-timeout-ms": b"1500"}) == 1.5


@pytest.mark.parametrize(
    "value", [b"", b"0", b"000", b"-1", b"1.5", b"1e3", b"x", b"9" * 10, b" 1", b"\xb2"]
)
def test_a_wrong_deadline_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedRequest) as caught:
        header_timeout_s({b"x-request-timeout-ms": value})
    assert caught.value.field == "x-request-timeout-ms"


def test_the_shortest_deadline_wins() -> None:
    assert shortest(None, None) is None
    assert shortest(None, 2.0) == 2.0
    assert shortest(1.0, 2.0) == 1.0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"content-type": b"application/json"},
        {b"content-type": b"application/json; charset=utf-8"},
        {b"content-type": b"Application/JSON"},
        {b"content-type": b"application/octet-stream"},
        {b"content-type": b"application/x-www-form-urlencoded"},
        {b"content-encoding": b"identity"},
        {b"content-encoding": b""},
    ],
)
def test_bodies_that_we_read(headers: dict[bytes, bytes]) -> None:
    check_media_type(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {b"content-type": b"text/xml"},
        {b"content-type": b"multipart/form-data; boundary=x"},
        {b"content-type": b""},
        {b"content-encoding": b"gzip"},
        {b"content-encoding": b"zstd"},
        {b"content-encoding": b"gzip, gzip"},
    ],
)
def test_bodies_that_we_do_not_read(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_media_type(headers)
