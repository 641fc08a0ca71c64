"""Parsers for a connection, which takes a new one where the old one cannot go on."""

from __future__ import annotations

from collections.abc import Mapping

import httptools

_FRAMING = (b"content-length", b"transfer-encoding")

NO_PARSER = httptools.HttpRequestParser(object())
"""Stands where a connection that is over had its own."""


def new_parser(receiver: object) -> httptools.HttpRequestParser:
    """A parser at the beginning of a request.

    Args:
        receiver: has httptools' callbacks.
    """
    parser = httptools.HttpRequestParser(receiver)
    # What follows a request that ends the connection is not worth a broken answer to it.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def has_body(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a head with these headers announces a body."""
    return any(name in fields for name in _FRAMING)


def framing_head(fields: Mapping[bytes, bytes]) -> bytes:
    """A head that says nothing but how the body is framed."""
    lines = [b"%b: %b\r\n" % (name, fields[name]) for name in _FRAMING if name in fields]
    return b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines)
