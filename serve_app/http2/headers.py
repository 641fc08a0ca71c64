"""Header blocks (HPACK, RFC 7541): reading them, at a small price for those that repeat."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError

from serve_app.http2.frames import ConnectionFault, ErrorCode
from serve_app.http2.limits import Limits

Headers = list[tuple[bytes, bytes]]
Head = TypeVar("Head")

_INDEXED = bytes(range(0x81, 0xFF))
"""Each of these bytes is a whole header: one that stands in a table."""
_MEMO_BLOCKS = 64
_MEMO_BLOCK_BYTES = 128
_ENTRY_BYTES = 32
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_UNSAFE = re.compile(rb"[\0\r\n]")
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED = _PSEUDO - {b":authority"}
_OF_CONNECTIONS = frozenset(
    {b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection"}
)


class HeaderReader(Generic[Head]):
    """Turns header blocks into what the application makes of them.

    A client that calls again and again sends the same few bytes, each of which stands for a header
    that both sides remember. What they mean changes only when something is added to the table.
    """

    def __init__(self, limits: Limits, interpret: Callable[[Headers], Head]) -> None:
        """Starts with an empty table.

        Args:
            limits: caps on what a block expands to.
            interpret: reads a valid request's headers.
        """
        self._decoder = Decoder(max_header_list_size=limits.max_decoded_bytes)
        self._interpret = interpret
        self._memo: dict[bytes, Head | ErrorCode] = {}

    def read(self, block: bytes) -> Head | ErrorCode:
        """Decodes a block; what comes back may be shared by many streams.

        Returns:
            What the headers mean, or why a stream that begins with them is reset.

        Raises:
            ConnectionFault: the block cannot be decoded, or expands to far too much.
        """
        known = self._memo.get(block)
        if known is not None:
            return known
        try:
            headers: Headers = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as exc:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "headers too large") from exc
        except HPACKError as exc:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "broken header block") from exc
        found = self._interpret(headers) if is_request(headers) else ErrorCode.PROTOCOL_ERROR
        if block.translate(None, _INDEXED):
            self._memo.clear()
        elif len(block) <= _MEMO_BLOCK_BYTES and len(self._memo) < _MEMO_BLOCKS:
            self._memo[block] = found
        return found


def list_size(headers: Headers) -> int:
    """What a header list counts for (RFC 9113, section 6.5.2)."""
    return sum([len(name) + len(value) + _ENTRY_BYTES for name, value in headers])


def is_request(headers: Headers) -> bool:
    """Whether these may begin a request (RFC 9113, section 8)."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    for name, value in headers:
        if _UNSAFE.search(value) is not None:
            return False
        if name.startswith(b":"):
            if regular or name in pseudo or name not in _PSEUDO:
                return False
            pseudo[name] = value
            continue
        regular = True
        if _NAME.fullmatch(name) is None or name in _OF_CONNECTIONS:
            return False
        if name == b"te" and value != b"trailers":
            return False
    return all(pseudo.get(name) for name in _REQUIRED)


def encode_headers(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A block without Huffman's code that adds nothing to the peer's table."""
    parts: list[bytes] = []
    for name, value in headers:
        parts += (b"\0", _length(name), name, _length(value), value)
    return b"".join(parts)


def _length(text: bytes) -> bytes:
    """A number with a prefix of seven bits (RFC 7541, section 5.1)."""
    number = len(text)
    if number < 0x7F:
        return bytes((number,))
    groups = bytearray(b"\x7f")
    number -= 0x7F
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
