"""The one message of a request, out of the pieces in which its bytes come."""

from __future__ import annotations

from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import MalformedRequest, PayloadTooLarge

PREFIX_SIZE = 5


class MessageReader:
    """Checks the prefix as soon as it has come, and puts the rest together in one place."""

    __slots__ = ("_buffer", "_length", "_max_bytes", "compressed")

    def __init__(self, max_bytes: int) -> None:
        """Has read nothing.

        Args:
            max_bytes: the cap on the message as it is sent.
        """
        self.compressed = False
        self._max_bytes = max_bytes
        self._length = -1  # not known yet
        self._buffer: bytes | bytearray = b""

    def feed(self, piece: Buffer) -> None:
        """Takes a piece.

        Raises:
            MalformedRequest: this is no message, or more than one.
            PayloadTooLarge: it is larger than the cap.
        """
        if self._length < 0:
            data = self._buffer + bytes(piece) if self._buffer else bytes(piece)
            if len(data) < PREFIX_SIZE:
                self._buffer = data
                return
            if data[0] > 1:
                raise MalformedRequest("a message begins with 0 or 1")
            self.compressed = data[0] == 1
            self._length = int.from_bytes(data[1:PREFIX_SIZE], "big")
            if self._length > self._max_bytes:
                raise message_too_large(self._max_bytes)
            self._buffer = data[PREFIX_SIZE:]
        else:
            if type(self._buffer) is bytes:
                self._buffer = bytearray(self._buffer)
            self._buffer += piece
        if len(self._buffer) > self._length:
            raise MalformedRequest("there are bytes after the message")

    def finish(self) -> Buffer:
        """The message, without its prefix.

        Raises:
            MalformedRequest: it is not complete.
        """
        if len(self._buffer) != self._length:
            raise MalformedRequest("the message is not complete")
        buffer = self._buffer
        return buffer if isinstance(buffer, bytes) else memoryview(buffer).toreadonly()


def message_too_large(cap: int) -> PayloadTooLarge:
    """The refusal of a message above the cap."""
    return PayloadTooLarge(f"the message is larger than the allowed {cap} bytes")
