"""Raw tensors out of serialised requests without copies, and protobuf's numbers.

Every fresh buffer of a megabyte costs a quarter of a millisecond in page faults alone, and protobuf
makes one for its arena and one more for each access. So the raw contents of a large request are cut
out of its bytes before it is parsed.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from serve_app.domain.raw_tensor import Buffer
from serve_app.errors import MalformedRequest, PayloadTooLarge
from serve_app.grpc.generated.open_inference_pb2 import ModelInferRequest

_LARGE = 32 * 1024
"""Smaller requests are parsed faster than they are cut."""
_MAX_FIELDS = 4096
"""Of a large request, without those inside its tensors. Protobuf makes 88 bytes of an empty tensor
that took two, so a message of nothing else would take gigabytes."""

_VARINT, _FIXED64, LENGTH_DELIMITED, _GROUP, _GROUP_END, _FIXED32 = range(6)
_RAW_IN = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | LENGTH_DELIMITED
_LEAST_KEY = 1 << 3
_SMALL = tuple(bytes([number]) for number in range(0x80))
"""The numbers that take one byte."""


def parse_request(data: Buffer) -> tuple[ModelInferRequest, Sequence[Buffer]]:
    """Parses a request; returns it and its raw contents, which the message may then lack.

    Raises:
        MalformedRequest: the bytes are not such a message.
        PayloadTooLarge: it is large, and has countless fields.
    """
    try:
        if len(data) > _LARGE and (parts := _cut(data)) is not None:
            rest, raw = parts
            return ModelInferRequest.FromString(rest), raw
        message = ModelInferRequest.FromString(bytes(data))
    except DecodeError as exc:
        raise MalformedRequest("the bytes are not a ModelInferRequest") from exc
    return message, message.raw_input_contents


def _cut(data: Buffer) -> tuple[bytes, list[Buffer]] | None:
    """Separates the raw contents from all other fields; None leaves the decision to protobuf."""
    view = memoryview(data)
    rest: list[memoryview] = []
    raw: list[Buffer] = []
    done = position = fields = groups = 0
    end = len(data)
    try:
        while position < end:
            fields += 1
            start = position
            key, position = _read_varint(data, position)
            kind = key & 7
            if kind == LENGTH_DELIMITED:
                length, position = _read_varint(data, position)
                stop = position + length
            elif kind == _VARINT:
                _, stop = _read_varint(data, position)
            elif kind in (_FIXED64, _FIXED32):
                stop = position + (8 if kind == _FIXED64 else 4)
            elif kind in (_GROUP, _GROUP_END):
                groups += 1 if kind == _GROUP else -1
                stop = position
            else:
                return None
            if stop > end or key < _LEAST_KEY:
                return None
            if fields > _MAX_FIELDS:
                raise PayloadTooLarge(f"a large request has at most {_MAX_FIELDS} fields")
            if key == _RAW_IN and not groups:
                rest.append(view[done:start])
                raw.append(view[position:stop])
                done = stop
            position = stop
    except IndexError:
        return None
    if not raw:
        return None
    rest.append(view[done:])
    return b"".join(rest), raw


def _read_varint(data: Buffer, position: int) -> tuple[int, int]:
    """Reads a number of up to ten bytes; returns it and the position after it."""
    number = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    raise IndexError(position)


def varint(number: int) -> bytes:
    """Writes a number that is not negative."""
    if number < 0x80:
        return _SMALL[number]
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
