"""The header blocks of answers: most of their bytes are the same for all."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import quote

from serve_app.grpc.errors import Failure, Metadata
from serve_app.http2.headers import encode_headers

_STATUS = {200: b"\x88"}
"""Responses that HPACK has a byte for."""
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

RESPONSE = _STATUS[200] + encode_headers([(b"content-type", b"application/grpc")])
"""The headers of every answer."""
OK = encode_headers([(b"grpc-status", b"0")])
"""The trailers of a good one."""
_ACCEPTED = encode_headers([(b"grpc-accept-encoding", b"identity, gzip, deflate")])


def encode_metadata(metadata: Metadata) -> bytes:
    """Writes metadata; what is not text is base64 and ends in `-bin`."""
    return encode_headers(
        (
            key.encode(),
            b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode(),
        )
        for key, value in metadata
    )


def encode_failure(failure: Failure) -> bytes:
    """The only headers of an answer that is an error."""
    status = encode_headers(
        [
            (b"grpc-status", b"%d" % failure.status),
            (b"grpc-message", quote(failure.detail, safe=_PRINTABLE).encode()),
        ]
    )
    return RESPONSE + status + encode_metadata(failure.trailers) + _ACCEPTED


def encode_http_status(status: int) -> bytes:
    """The only headers of an answer to something that is not gRPC."""
    return encode_headers([(b":status", b"%d" % status)])
