"""The sending side of a connection: what the peer takes, and whose turn it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from serve_app.http2.frames import (
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME_SIZE,
    LARGEST_NUMBER,
    LEAST_FRAME_SIZE,
    MAX_FRAME_SIZE,
    SETTING,
    Buffer,
    ConnectionFault,
    ErrorCode,
)
from serve_app.http2.state import Http2State
from serve_app.http2.stream import Stream


class Outlet:
    """Keeps the peer's windows, and sends what waits frame by frame, each stream in turn."""

    write: Callable[[Buffer], None]
    """Sends bytes; nowhere, once the connection is over."""

    def __init__(self, state: Http2State) -> None:
        self.state = state
        self.streams: dict[int, Stream] = {}
        self.window = DEFAULT_WINDOW
        """Bytes of DATA that the peer takes on all streams together."""
        self.initial_window = DEFAULT_WINDOW
        """The same for a new stream."""
        self.frame_size = LEAST_FRAME_SIZE
        self.paused = False
        """Whether what was written has not left yet."""
        self.spoke = False
        """Whether HEADERS or DATA were sent since the peer's last ping."""
        self._sendable: OrderedDict[int, Stream] = OrderedDict()  # whose turn comes

    def enqueue(self, stream: Stream) -> None:
        """Sends what waits on a stream, now or when the peer takes more."""
        if stream.room > 0:
            self._sendable[stream.id] = stream
        self.flush()

    def flush(self) -> None:
        """Sends a frame of each stream in turn, while the peer takes any."""
        sendable = self._sendable
        while sendable and self.window > 0 and not self.paused:
            _, stream = sendable.popitem(last=False)
            if stream.room > 0:
                stream.send_frame()
            if stream.waiting and stream.room > 0:
                sendable[stream.id] = stream

    def forget(self, stream: Stream) -> None:
        """The stream is over."""
        self.streams.pop(stream.id, None)
        self._sendable.pop(stream.id, None)

    def widen(self, size: int) -> None:
        """Takes an update of the connection's window.

        Raises:
            ConnectionFault: it is not allowed.
        """
        if not size:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window that does not grow")
        self.window += size
        if self.window > LARGEST_NUMBER:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the window is too large")
        self.flush()

    def follow(self, settings: bytes) -> None:
        """Takes the peer's settings; those that concern nothing we do are ignored.

        Raises:
            ConnectionFault: one is not allowed.
        """
        widened = max([0, *[-each.sent for each in self.streams.values()]])
        for key, value in SETTING.iter_unpack(settings):
            if key == INITIAL_WINDOW_SIZE:
                self.initial_window = value
                if value + widened > LARGEST_NUMBER:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
            elif key == MAX_FRAME_SIZE:
                if not LEAST_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "frames of a wrong size")
                self.frame_size = value
            elif key == ENABLE_PUSH and value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a setting that is no choice")
        for stream in list(self.streams.values()):
            if stream.waiting:
                self.enqueue(stream)
