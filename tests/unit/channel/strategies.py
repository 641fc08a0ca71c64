"""Arbitrary batches, results and frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.channel.frame import Kind, bare_frame, call_frame, failure_frame, greeting_frame
from serve_app.channel.frame import result_frame as result_parts
from serve_app.domain.bytes_tensor import bytes_array
from serve_app.domain.inference import BatchResult, Failure, InferenceBatch
from serve_app.domain.raw_tensor import Buffer
from serve_app.domain.tensor import BYTES, DTYPES, Array
from serve_app.errors import NotReady

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
TEXT = st.text(max_size=20)
SECONDS = st.floats(allow_nan=False)
DURATIONS = st.floats(0.0, allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**40)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    datatype, shape = draw(st.sampled_from(sorted(DTYPES))), draw(SHAPES)
    count = math.prod(shape)
    if datatype == BYTES:
        elements = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
        return bytes_array(elements, shape)
    dtype = DTYPES[datatype]
    if datatype == "BOOL":
        return draw(hnp.arrays(dtype, shape))
    size = count * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    array: Array = np.frombuffer(raw, dtype).reshape(shape)
    return array


TENSORS = st.dictionaries(TEXT, arrays(), max_size=4)


@st.composite
def batches(draw: st.DrawFn) -> InferenceBatch:
    members = draw(st.integers(1, 5))

    def each(values: st.SearchStrategy[float]) -> tuple[float, ...]:
        return tuple(draw(st.lists(values, min_size=members, max_size=members)))

    texts = st.lists(TEXT, min_size=members, max_size=members).map(tuple)
    rows = tuple(draw(st.lists(COUNTS, min_size=members, max_size=members)))
    return InferenceBatch(
        draw(TENSORS),
        rows,
        each(SECONDS),
        draw(texts),
        draw(COUNTS),
        draw(COUNTS),
        draw(st.one_of(st.just(()), texts)),
    )


FAILURES = st.builds(Failure, TEXT, TEXT, st.none() | TEXT)


def results() -> st.SearchStrategy[BatchResult]:
    failures = st.dictionaries(st.integers(0, 99), FAILURES, max_size=3)
    return st.builds(BatchResult, TENSORS, failures, DURATIONS, TEXT, COUNTS, COUNTS)


def joined(parts: Sequence[Buffer]) -> bytes:
    return b"".join(parts)


def frames() -> st.SearchStrategy[bytes]:
    """Any frame of the protocol, valid."""
    number = st.integers(0, 2**32 - 1)
    bare = st.sampled_from([Kind.CANCEL, Kind.DRAINING, Kind.BEAT])
    return st.one_of(
        st.builds(lambda n, batch: joined(call_frame(n, batch, 1.0)[0]), number, batches()),
        st.builds(lambda n, result: joined(result_parts(n, result)), number, results()),
        st.builds(lambda n, text: joined(failure_frame(n, NotReady(text))), number, TEXT),
        st.builds(
            lambda text, shares: joined(greeting_frame(text, shares_memory=shares)),
            TEXT,
            st.booleans(),
        ),
        st.builds(bare_frame, bare, number),
    )


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Some valid frames in a row, of which a few bytes were changed, added or left out."""
    stream = bytearray(joined(draw(st.lists(frames(), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(stream)))
        stream[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(stream)


def same(left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    """Whether two sets of tensors are equal to the last bit, also where they are not numbers."""
    return list(left) == list(right) and all(
        array.dtype == other.dtype
        and array.shape == other.shape
        and (
            array.tolist() == other.tolist()
            if array.dtype.hasobject
            else array.tobytes() == other.tobytes()
        )
        for array, other in zip(left.values(), right.values(), strict=True)
    )
