"""JSON lines for everything that a process says; one schema (docs/reference/logs.md).

Fields are an allow-list: what is not in `EXTRA_FIELDS` never reaches a line, whatever the caller
passes as `extra`. Third-party loggers speak from WARNING on only: below that some of them log URLs
with their query strings, headers and bodies.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TextIO

import orjson
from pythonjsonlogger.orjson import OrjsonFormatter

from serve_app.context import current_request

EXTRA_FIELDS: tuple[str, ...] = (
    "action",
    "request_id",
    "trace_id",
    "model",
    "version",
    "arm",
    "fallback_from",
    "protocol",
    "transport",
    "status",
    "code",
    "duration_ms",
    "queue_ms",
    "compute_ms",
    "rows",
    "batch_rows",
    "revision",
    "replicas",
    "port",
)
"""What `extra={...}` may carry, in the order in which the fields stand in a line."""

OWN_LOGGERS = ("serve_app", "deployments")
"""Follow `log.level`; everybody else speaks from WARNING on."""

_ADOPTED_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "grpc")
"""Libraries that like to bring handlers of their own."""

_CONTEXT_FIELDS = frozenset({"request_id", "model", "version"})
_PLAIN = frozenset({str, int, float, bool})
_MAX_TEXT = 32_768


class LogSettings(Protocol):
    """The group `log` of the config, as far as this module needs it."""

    @property
    def level(self) -> str:
        """The lowest level that is written."""
        ...

    @property
    def max_file_bytes(self) -> int:
        """At this size a log file is renamed and a new one begun."""
        ...


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(timestamp: float) -> str:
    """A UNIX time as RFC 3339 in UTC with milliseconds, such as 2026-01-31T23:59:59.042Z."""
    milliseconds = int(timestamp * 1000.0)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def json_line(fields: Mapping[str, object]) -> str:
    """One line of JSON; text that is no valid Unicode and huge numbers are spelled out."""
    try:
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE).decode()
    except TypeError:
        printable = {
            name: str(value).encode("utf-8", "backslashreplace").decode()
            for name, value in fields.items()
        }
        return orjson.dumps(printable, option=orjson.OPT_APPEND_NEWLINE).decode()


class LineFormatter(OrjsonFormatter):
    """Makes one JSON line of the documented schema from a log record."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fills in our fields and nothing else, where the base class would take all extras."""
        log_data["timestamp"] = rfc3339(record.created)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.message[:_MAX_TEXT]
        log_data["process"] = self._process
        log_data["pid"] = record.process
        extra = record.__dict__
        request = current_request.get()
        for name in EXTRA_FIELDS:
            value = extra.get(name)
            if value is None and request is not None and name in _CONTEXT_FIELDS:
                value = getattr(request, name)
            if value is not None and value != "":
                log_data[name] = value if type(value) in _PLAIN else str(value)
        if record.exc_info and record.exc_info[0] is not None:
            # Not `formatException`: it prints, and Serve replaces `print` in its replicas by one
            # that garbles a traceback.
            text = "".join(traceback.format_exception(*record.exc_info))
            log_data["exception"] = text.rstrip()[-_MAX_TEXT:]

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """JSON without the line's end, which the handler adds."""
        return json_line(log_data).removesuffix("\n")


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to one stream; the access log writes its own through the same lock.

    A file that has reached `max_bytes` is renamed to `<name>.1`, in place of an older one, so that
    a process never keeps more than twice that on the disk. Nothing that the disk does reaches the
    caller: lines that cannot be written are lost.
    """

    def __init__(
        self, process: str, stream: TextIO, *, path: Path | None = None, max_bytes: int = 0
    ) -> None:
        super().__init__(stream)
        self.process = process
        self._path = path
        self._max_bytes = max_bytes
        self._size = self._length()
        self.setFormatter(LineFormatter(process))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        try:
            line = f"{self.format(record)}\n"
        except Exception:  # such as an argument that does not fit the message
            self.handleError(record)
            return
        self.write(line)

    def write(self, lines: str) -> None:
        """Writes finished lines; a stream that cannot take them loses them, as for any handler."""
        self.acquire()
        try:
            self.stream.write(lines)
            self.stream.flush()
            # Counted rather than asked for: `tell` costs a system call and fails on a full disk.
            self._size += len(lines) if lines.isascii() else len(lines.encode())
            self._rotate()
        except (OSError, ValueError):  # full disk, closed pipe: there is nowhere left to say so
            return
        finally:
            self.release()

    def _rotate(self) -> None:
        """Starts a new file when this one is full; called with the lock held."""
        path = self._path
        if path is None or not self._max_bytes or self._size < self._max_bytes:
            return
        self._size = self._length()  # somebody may have cut the file meanwhile
        if self._size < self._max_bytes:
            return
        try:
            path.replace(path.with_name(f"{path.name}.1"))
            fresh = path.open("a", encoding="utf-8")
        except OSError:  # the old file stays in use: rather too large than lost
            return
        full, self.stream = self.stream, fresh
        self._size = self._length()
        full.close()

    def _length(self) -> int:
        return 0 if self._path is None else os.fstat(self.stream.fileno()).st_size

    def close(self) -> None:
        """Closes a file that was opened for this handler, never a stream that was given."""
        super().close()
        if self._path is not None:
            with suppress(OSError):  # what a full disk did not take
                self.stream.close()


def configure_logging(
    log: LogSettings, *, process: str, stream: TextIO | None = None, path: Path | None = None
) -> LineHandler:
    """Sends all logging of this process to one place as JSON lines; may be called again.

    Args:
        log: the group `log` of the config.
        process: what this process is, such as "ingress"; stands in every line.
        stream: where to write; standard error when neither this nor `path` is given.
        path: a file to append to instead. Append mode survives rotation by truncation.

    Returns:
        The handler, which stands on the root logger already.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = LineHandler(
            process, path.open("a", encoding="utf-8"), path=path, max_bytes=log.max_file_bytes
        )
    else:
        handler = LineHandler(process, stream or sys.stderr)
    root = logging.getLogger()
    for former in [each for each in root.handlers if isinstance(each, LineHandler)]:
        root.removeHandler(former)
        former.close()
    root.addHandler(handler)
    level: int = logging.getLevelNamesMapping()[log.level]
    root.setLevel(max(level, logging.WARNING))
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    for name in _ADOPTED_LOGGERS:
        adopted = logging.getLogger(name)
        adopted.handlers.clear()
        adopted.propagate = True
    return handler


def current_handler() -> LineHandler:
    """The handler of this process; one on standard error where logging was never configured."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            return handler
    return LineHandler("unknown", sys.stderr)
