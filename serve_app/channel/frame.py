"""The frames of the direct channel: typed headers and raw tensors, no pickle.

A frame is, in little-endian order::

    2 bytes  magic "SA"
    1 byte   version of the protocol
    1 byte   kind
    4 bytes  number of the call that it belongs to; 0: none
    4 bytes  H, length of the header
    4 bytes  P, length of the payload
    H bytes  header: a MessagePack array, one type per kind
    0 to 15  zero bytes, up to a multiple of 16 from the frame's beginning
    P bytes  payload: the tensors, each followed by zero bytes up to a multiple of 16; that of a
             large call is in shared memory instead

A tensor is its elements, little-endian and row-major; one of BYTES has before each element its
length in 32 bits. Both sides check every number before they use it: whatever arrives, the answer is
a value of these types or a `FrameError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from math import inf
from struct import Struct as Layout
from time import monotonic
from typing import NamedTuple, TypeVar

import msgspec

from serve_app.channel.payload import ALIGNMENT, ZEROS, TensorHeader, fill, pack, padded, unpack
from serve_app.channel.payload import FrameError as FrameError
from serve_app.channel.segment import SHARED_FROM, Segment, SegmentMaps, SegmentPool, SegmentRef
from serve_app.domain.inference import BatchResult, Failure, InferenceBatch
from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import PayloadTooLarge, ServeAppError

MAGIC = b"SA"
VERSION = 1
MAX_FRAME_BYTES = 1 << 30
"""No batch comes near: the caps on bodies and on rows are far below."""

PREFIX = Layout("<2sBBIII")
_LONGEST_AGE_S = 3600.0
_JOIN_BELOW = 64 * 1024
"""Smaller frames are joined: one copy costs less than a vector of buffers."""

T = TypeVar("T")


class Kind(IntEnum):
    """What a frame says. The replica's side speaks first, with a GREETING."""

    GREETING = 1
    CALL = 2
    """One batch; answered by exactly one RESULT or FAILURE, also when it was cancelled."""
    RESULT = 3
    FAILURE = 4
    """The call as a whole has failed."""
    CANCEL = 5
    """Nobody wants the call's result any more."""
    DRAINING = 6
    """The replica goes away: no more calls, those under way will be answered."""
    BEAT = 7
    """The replica's process is alive."""


class Header(msgspec.Struct, array_like=True, gc=False):
    """A header is an array of its fields; a peer of another version is refused by the prefix."""


class Greeting(Header):
    """Who listens."""

    replica: str
    shares_memory: bool
    """Whether it can read segments of the ingress that it greets."""


class CallHeader(Header):
    """An `InferenceBatch` without its tensors."""

    sent_at: float
    """`time.monotonic()` of the node when the budgets were counted."""
    rows: tuple[int, ...]
    budgets_s: tuple[float, ...]
    request_ids: tuple[str, ...]
    traceparents: tuple[str, ...]
    slice_rows: int
    backlog: int
    tensors: tuple[TensorHeader, ...]
    segment: SegmentRef | None
    """Where the payload is, if it does not follow the header."""


class MemberFailure(Header):
    """A `Failure` and whose it is."""

    member: int
    code: str
    detail: str
    field: str | None


class ResultHeader(Header):
    """A `BatchResult` without its tensors."""

    compute_s: float
    tokens: int
    padding: int
    failures: tuple[MemberFailure, ...]
    tensors: tuple[TensorHeader, ...]


class FailureHeader(Header):
    """Why a call failed; `code` is the code of an error class."""

    code: str
    detail: str


class Frame(NamedTuple):
    """One frame as it arrived."""

    kind: Kind
    call: int
    header: memoryview
    payload: memoryview


_encode = msgspec.msgpack.Encoder().encode
_GREETING = msgspec.msgpack.Decoder(Greeting)
_CALL = msgspec.msgpack.Decoder(CallHeader)
_RESULT = msgspec.msgpack.Decoder(ResultHeader)
_FAILURE = msgspec.msgpack.Decoder(FailureHeader)


# Writing


def greeting_frame(replica: str, *, shares_memory: bool) -> list[Buffer]:
    """The first frame on a connection."""
    return _frame(Kind.GREETING, 0, _encode(Greeting(replica, shares_memory)))


def call_frame(
    call: int, batch: InferenceBatch, sent_at: float, pool: SegmentPool | None = None
) -> tuple[list[Buffer], Segment | None]:
    """A batch; returns the buffers to write one after the other.

    Args:
        call: its number.
        batch: the members.
        sent_at: from when their budgets count.
        pool: where a large payload may go; the segment that it took is returned, too, and is to
            be given back when the call has been answered.

    Raises:
        PayloadTooLarge: the other side would refuse it, and with it the connection.
    """
    tensors, payload, size = pack(batch.inputs)
    segment = None
    if pool is not None and size >= SHARED_FROM:
        with suppress(OSError):  # no memory, or no descriptor: then inline
            segment = pool.take(size)
    if segment is not None:
        fill(segment.view, payload)
        payload, size = [], 0
    header = CallHeader(
        sent_at,
        batch.rows,
        batch.budgets_s,
        batch.request_ids,
        batch.traceparents,
        batch.slice_rows,
        batch.backlog,
        tensors,
        None if segment is None else segment.ref,
    )
    return _frame(Kind.CALL, call, _encode(header), payload, size), segment


def result_frame(call: int, result: BatchResult) -> list[Buffer]:
    """The answer to a call; raises PayloadTooLarge."""
    tensors, payload, size = pack(result.outputs)
    failures = tuple(
        [MemberFailure(member, *failure) for member, failure in result.failures.items()]
    )
    header = ResultHeader(result.compute_s, result.tokens, result.padding, failures, tensors)
    return _frame(Kind.RESULT, call, _encode(header), payload, size)


def failure_frame(call: int, error: ServeAppError) -> list[Buffer]:
    """The answer to a call that failed as a whole."""
    return _frame(Kind.FAILURE, call, _encode(FailureHeader(error.code, str(error))))


def bare_frame(kind: Kind, call: int = 0) -> bytes:
    """A frame without header and payload: CANCEL, DRAINING, BEAT."""
    return PREFIX.pack(MAGIC, VERSION, kind, call, 0, 0)


def _frame(
    kind: Kind, call: int, header: bytes, payload: Sequence[Buffer] = (), size: int = 0
) -> list[Buffer]:
    if PREFIX.size + len(header) + ALIGNMENT + size > MAX_FRAME_BYTES:
        raise PayloadTooLarge(f"a batch of {size} bytes; at most {MAX_FRAME_BYTES} are possible")
    prefix = PREFIX.pack(MAGIC, VERSION, kind, call, len(header), size)
    parts: list[Buffer] = [prefix, header, ZEROS[: -len(header) % ALIGNMENT], *payload]
    return [b"".join(parts)] if size < _JOIN_BELOW else parts


# Reading


def read_greeting(frame: Frame) -> Greeting:
    """Raises FrameError for anything but a greeting."""
    if frame.kind is not Kind.GREETING:
        raise FrameError("a replica begins with a greeting")
    return _decoded(_GREETING, frame)


def read_call(frame: Frame, maps: SegmentMaps | None = None) -> tuple[InferenceBatch, float]:
    """The batch, and the `time.monotonic()` from which its budgets count.

    Args:
        frame: of kind CALL.
        maps: the sender's segments.

    Raises:
        FrameError: the frame contradicts itself.
        OSError: its segment cannot be read.
    """
    header = _decoded(_CALL, frame)
    members = len(header.rows)
    if not (members == len(header.budgets_s) == len(header.request_ids)) or not members:
        raise FrameError("rows, budgets and request ids must be equally many, and at least one")
    if len(header.traceparents) not in (0, members):
        raise FrameError("trace contexts must be as many as members, or none")
    if min(header.rows) < 0 or header.slice_rows < 0 or header.backlog < 0:
        raise FrameError("rows cannot be negative")
    payload = frame.payload
    if header.segment is not None:
        if maps is None or payload:
            raise FrameError("a segment cannot be read here, or not beside a payload")
        size = sum([padded(each.size) for each in header.tensors])
        payload = maps.view(header.segment)[: max(size, 0)]
    inputs = unpack(header.tensors, payload)
    batch = InferenceBatch(
        inputs,
        header.rows,
        header.budgets_s,
        header.request_ids,
        header.slice_rows,
        header.backlog,
        header.traceparents,
    )
    now = monotonic()
    possible = max(0.0, now - _LONGEST_AGE_S) <= header.sent_at <= now
    return batch, header.sent_at if possible else now


def read_result(frame: Frame, transport: str) -> BatchResult:
    """The answer to a call.

    Args:
        frame: of kind RESULT.
        transport: what the result says about the way it took.

    Raises:
        FrameError: the frame contradicts itself.
    """
    header = _decoded(_RESULT, frame)
    if not 0.0 <= header.compute_s < inf:
        raise FrameError("a computation takes a time")
    return BatchResult(
        unpack(header.tensors, frame.payload),
        {each.member: Failure(each.code, each.detail, each.field) for each in header.failures},
        header.compute_s,
        transport,
        header.tokens,
        header.padding,
    )


def read_failure(frame: Frame) -> FailureHeader:
    """Why a call failed; raises FrameError."""
    return _decoded(_FAILURE, frame)


def _decoded(decoder: msgspec.msgpack.Decoder[T], frame: Frame) -> T:
    try:
        return decoder.decode(frame.header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise FrameError(f"the header of a {frame.kind.name} cannot be read: {exc}") from exc
