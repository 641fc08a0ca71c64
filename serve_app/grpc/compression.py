"""Compressed messages, never larger than the cap, whatever they claim to be."""

from __future__ import annotations

import zlib

from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import MalformedRequest
from serve_app.grpc.message import message_too_large

IDENTITY = b"identity"
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
ENCODINGS = frozenset({IDENTITY, *_WINDOW_BITS})


def inflate(data: Buffer, encoding: bytes, cap: int) -> bytes:
    """Decompresses a message.

    Args:
        data: the compressed message.
        encoding: of `ENCODINGS`.
        cap: the largest size that comes out of it.

    Raises:
        MalformedRequest: it is not compressed like that.
        PayloadTooLarge: it is larger than `cap`.
    """
    if encoding == IDENTITY:
        raise MalformedRequest("the message is compressed, and grpc-encoding does not say how")
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        message = inflater.decompress(data, cap + 1)
    except zlib.error as exc:
        raise MalformedRequest(f"the message is not {encoding.decode()}") from exc
    if len(message) > cap:
        raise message_too_large(cap)
    if not inflater.eof or inflater.unused_data:
        raise MalformedRequest(f"the message is not one of {encoding.decode()}")
    return message
