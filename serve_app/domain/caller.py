"""What a release may ask about whoever sent a request: headers, cookies, query.

Nothing is parsed before it is asked for: most models have neither rules nor sticky assignments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import parse_qsl

TENANT = "x-tenant-id"
API_KEY = "x-api-key"
_AUTHORIZATION = "authorization"
_BEARER = "bearer "


class Caller(Protocol):
    """The sender of one request. Names of headers are in lower case."""

    def header(self, name: str) -> str | None:
        """The value of a header, or of a metadata entry."""
        ...

    def cookie(self, name: str) -> str | None:
        """The value of a cookie."""
        ...

    def query(self, name: str) -> str | None:
        """The first value of a parameter in the URL's query."""
        ...


class UnknownCaller:
    """Says nothing about itself."""

    def header(self, name: str) -> str | None:
        """See `Caller`."""

    def cookie(self, name: str) -> str | None:
        """See `Caller`."""

    def query(self, name: str) -> str | None:
        """See `Caller`."""


UNKNOWN = UnknownCaller()


class HttpCaller:
    """The sender of an HTTP request."""

    __slots__ = ("_fields", "_query")

    def __init__(self, fields: Mapping[bytes, bytes], query: bytes) -> None:
        """Keeps both as they came.

        Args:
            fields: headers, names in lower case.
            query: what stands behind the question mark, still encoded.
        """
        self._fields = fields
        self._query = query

    def header(self, name: str) -> str | None:
        """See `Caller`."""
        value = self._fields.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def cookie(self, name: str) -> str | None:
        """See `Caller`."""
        return _cookie(self.header("cookie"), name)

    def query(self, name: str) -> str | None:
        """See `Caller`."""
        pairs = parse_qsl(self._query.decode("latin-1"), keep_blank_values=True)
        return next((value for key, value in pairs if key == name), None)


class MetadataCaller:
    """The sender of a call whose metadata are text, as in gRPC; there is no query."""

    __slots__ = ("_metadata",)

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata

    def header(self, name: str) -> str | None:
        """See `Caller`."""
        return self._metadata.get(name)

    def cookie(self, name: str) -> str | None:
        """See `Caller`."""
        return _cookie(self._metadata.get("cookie"), name)

    def query(self, name: str) -> str | None:
        """See `Caller`."""


def sticky_value(by: str, name: str, caller: Caller) -> str | None:
    """What an assignment sticks to; None or empty if the caller does not say.

    Args:
        by: as in `serve_app.domain.release.Sticky`.
        name: of the header or the cookie.
        caller: the sender of the request.
    """
    if by == "header":
        return caller.header(name)
    if by == "cookie":
        return caller.cookie(name)
    if by == "tenant":
        return caller.header(TENANT)
    return caller.header(API_KEY) or _bearer(caller.header(_AUTHORIZATION))


def _cookie(header: str | None, name: str) -> str | None:
    for pair in (header or "").split(";"):
        key, equals, value = pair.strip().partition("=")
        if equals and key == name:
            return value.strip('"')
    return None


def _bearer(authorization: str | None) -> str | None:
    if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
        return None
    return authorization[len(_BEARER) :].strip()
