"""What one connection may cost us."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.http2.frames import (
    DEFAULT_WINDOW,
    HEAD_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    settings,
    window_update,
)

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps and time limits of every connection of a listener."""

    max_connections: int
    max_streams: int
    """Open at a time on one connection; more are refused, and may be sent again."""
    max_buffered_bytes: int
    """Of all unanswered requests and unsent answers of the listener."""
    max_connection_age_s: float | None = None
    """After this long, a tenth more or less, the peer is asked to connect anew."""
    max_header_bytes: int = 16 * 1024
    """Of a stream's header list, names, values and 32 for each (section 6.5.2)."""
    stream_window: int = 4 * _MIB
    connection_window: int = 16 * _MIB
    max_frame_size: int = _MIB
    """Larger frames mean fewer; each takes its place in the message as its bytes come."""
    header_timeout_s: float = 10.0
    """For the preface, and for the rest of a header block."""
    message_timeout_s: float = 30.0
    """For the next part of a request."""
    write_timeout_s: float = 30.0
    """For a peer that does not take what we send."""
    silence_s: float = 60.0
    """After this long without a byte the peer is asked whether it is there."""
    pong_s: float = 20.0
    """For its answer."""

    @property
    def shortest_s(self) -> float:
        """The shortest of the time limits."""
        age_s = self.max_connection_age_s
        times_s = (self.header_timeout_s, self.message_timeout_s, self.write_timeout_s)
        return min(*times_s, self.silence_s, self.pong_s, age_s or self.silence_s)

    @property
    def max_decoded_bytes(self) -> int:
        """Header lists above the cap, up to this, cost the stream; larger ones the connection."""
        return 16 * self.max_header_bytes

    @property
    def max_block_bytes(self) -> int:
        """Of a header block as it was sent, with the heads of its frames after the first."""
        return self.max_decoded_bytes + 64 * HEAD_SIZE

    @property
    def greeting(self) -> bytes:
        """What a connection says first."""
        allowed = {
            MAX_CONCURRENT_STREAMS: self.max_streams,
            INITIAL_WINDOW_SIZE: self.stream_window,
            MAX_FRAME_SIZE: self.max_frame_size,
            MAX_HEADER_LIST_SIZE: self.max_header_bytes,
        }
        return settings(allowed) + window_update(0, self.connection_window - DEFAULT_WINDOW)
