"""Frames: what is sent is what is read, and nothing else is."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeexit.errors import WireError
from edgeexit.transport import wire
from edgeexit.transport.frames import CANCEL_BYTES, cancel
from edgeexit.transport.status import Status
from edgeexit.transport.wire import Frame, Header, Kind, TensorHeader, WireTensor, decode, encode

_floats = st.none() | st.floats(min_value=0, max_value=1e12)
_names = st.text(min_size=1, max_size=64).filter(lambda text: text.isprintable())


@st.composite
def _tensors(draw: st.DrawFn) -> WireTensor:
    name = draw(st.sampled_from(sorted(wire.WIRE_DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5))
    raw = draw(st.binary(min_size=1, max_size=16))
    count = int(np.prod(shape)) * wire.WIRE_DTYPES[name].itemsize
    data = np.frombuffer((raw * count)[:count], wire.WIRE_DTYPES[name]).reshape(shape)
    axis = draw(st.none() | st.integers(0, len(shape) - 1)) if shape else None
    scales = shape[axis] if axis is not None else draw(st.integers(0, 1))
    scale = st.floats(min_value=1e-30, max_value=1e30)
    return WireTensor(
        draw(_names),
        name,
        data,
        tuple(draw(st.lists(scale, min_size=scales, max_size=scales))),
        tuple(draw(st.lists(st.integers(-128, 127), min_size=scales, max_size=scales))),
        axis,
    )


@st.composite
def frames(draw: st.DrawFn) -> tuple[Header, list[WireTensor]]:
    header = Header(
        kind=draw(st.sampled_from(Kind)),
        request_id=draw(st.binary(min_size=16, max_size=16)),
        bundle_digest=draw(st.binary(min_size=16, max_size=16)),
        stage_in=draw(st.integers(0, 255)),
        stage_out=draw(st.integers(0, 255)),
        frame=draw(st.integers(0, 2**63 - 1)),
        budget_left_ms=draw(_floats),
        reply_topic=draw(st.text(max_size=60)),
        status=draw(st.sampled_from(Status)),
        retry_after_ms=draw(_floats),
        queue_ms=draw(_floats),
        compute_ms=draw(_floats),
    )
    tensors = draw(st.lists(_tensors(), max_size=4, unique_by=lambda tensor: tensor.name))
    return header, tensors


def _example() -> bytes:
    header = Header(kind=Kind.REQUEST, request_id=bytes(range(16)), bundle_digest=bytes(16), stage_in=2)
    hidden = WireTensor("hidden", "i1", np.arange(-60, 60, dtype=np.int8).reshape(1, 8, 15), (0.5,), (3,))
    return encode(header, [hidden, WireTensor.of("token", np.ones((1, 3), np.float32))])


def _rewrite(frame: bytes, header: Header) -> bytes:
    """The frame with another header, checksum right: what a hostile sender would write."""
    old = struct.unpack_from("<I", frame, 8)[0]
    packed = msgspec.msgpack.encode(header)
    body = frame[wire.aligned(16 + old) :]
    prefix = struct.pack("<4sBBHII", b"EEXF", 1, 0, 0, len(packed), zlib.crc32(packed))
    return prefix + packed + bytes(-(16 + len(packed)) % 16) + body


@given(frames())
def test_a_frame_survives_the_wire(parts: tuple[Header, list[WireTensor]]) -> None:
    header, tensors = parts
    data = encode(header, tensors)
    frame = decode(data)
    assert msgspec.structs.replace(frame.header, tensors=()) == header
    assert frame.size_bytes == len(data)
    assert len(data) % wire.ALIGNMENT == 0
    for sent, got in zip(tensors, frame.tensors, strict=True):
        assert (got.name, got.dtype, got.scale, got.zero_point, got.axis) == (
            sent.name,
            sent.dtype,
            sent.scale,
            sent.zero_point,
            sent.axis,
        )
        assert got.data.shape == sent.data.shape
        assert got.data.tobytes() == sent.data.tobytes()


def test_tensors_are_aligned_views() -> None:
    data = _example()
    address = np.frombuffer(data, np.uint8).ctypes.data
    for tensor in decode(data).tensors:
        assert (tensor.data.ctypes.data - address) % wire.ALIGNMENT == 0
        assert not tensor.data.flags.owndata
        assert not tensor.data.flags.writeable


def test_a_transposed_array_is_sent_in_row_major_order() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    header = Header(kind=Kind.REPLY, request_id=bytes(16), bundle_digest=bytes(16))
    assert np.array_equal(decode(encode(header, [WireTensor.of("a", array)])).tensors[0].data, array)


def _frame_or_wire_error(data: bytes) -> Frame | None:
    try:
        frame = decode(data, cap_bytes=1 << 16)
    except WireError:
        return None
    assert frame.size_bytes == len(data)
    return frame


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert _frame_or_wire_error(data) is None


@given(frames(), st.data())
def test_a_damaged_frame_is_a_frame_or_a_wire_error(
    parts: tuple[Header, list[WireTensor]], data: st.DataObject
) -> None:
    damaged = bytearray(encode(*parts))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    _frame_or_wire_error(bytes(damaged))


@given(frames(), st.data())
def test_a_cut_or_lengthened_frame_is_refused(
    parts: tuple[Header, list[WireTensor]], data: st.DataObject
) -> None:
    whole = encode(*parts)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert _frame_or_wire_error(whole[:cut]) is None
    assert _frame_or_wire_error(whole + data.draw(st.binary(min_size=1, max_size=40))) is None


@given(st.binary(max_size=300))
def test_any_header_with_a_right_checksum_is_a_frame_or_a_wire_error(packed: bytes) -> None:
    prefix = struct.pack("<4sBBHII", b"EEXF", 1, 0, 0, len(packed), zlib.crc32(packed))
    _frame_or_wire_error(prefix + packed + bytes(-(16 + len(packed)) % 16))


_values: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


@given(st.integers(0, 12), _values)
def test_any_value_in_any_header_field_is_a_frame_or_a_wire_error(field: int, value: object) -> None:
    fields = list(msgspec.structs.astuple(decode(_example()).header))
    fields[field] = value
    packed = msgspec.msgpack.encode(fields)
    prefix = struct.pack("<4sBBHII", b"EEXF", 1, 0, 0, len(packed), zlib.crc32(packed))
    _frame_or_wire_error(prefix + packed + bytes(-(16 + len(packed)) % 16) + bytes(144))


@given(st.integers(0, 8), _values)
def test_any_value_in_any_tensor_field_is_a_frame_or_a_wire_error(field: int, value: object) -> None:
    header = decode(_example()).header
    described = [list(msgspec.structs.astuple(tensor)) for tensor in header.tensors]
    described[0][field] = value
    packed = msgspec.msgpack.encode([*msgspec.structs.astuple(header)[:-1], described])
    prefix = struct.pack("<4sBBHII", b"EEXF", 1, 0, 0, len(packed), zlib.crc32(packed))
    _frame_or_wire_error(prefix + packed + bytes(-(16 + len(packed)) % 16) + bytes(144))


def test_fields_appended_by_a_later_version_are_passed_over() -> None:
    data = _example()
    fields = [*msgspec.structs.astuple(decode(data).header), "something new"]
    packed = msgspec.msgpack.encode(fields)
    prefix = struct.pack("<4sBBHII", b"EEXF", 1, 0, 0, len(packed), zlib.crc32(packed))
    body = data[wire.aligned(16 + struct.unpack_from("<I", data, 8)[0]) :]
    later = prefix + packed + bytes(-(16 + len(packed)) % 16) + body
    assert decode(later).header.stage_in == 2


def test_sizes_are_refused_before_anything_is_allocated() -> None:
    huge = TensorHeader(name="a", dtype="f4", shape=(2**31 - 1,) * 8, raw_bytes=2**62, stored_bytes=2**62)
    header = Header(kind=Kind.REQUEST, request_id=bytes(16), bundle_digest=bytes(16), tensors=(huge,))
    fitting = msgspec.structs.replace(
        header,
        tensors=(msgspec.structs.replace(huge, shape=(2**30,), raw_bytes=2**32, stored_bytes=2**32),),
    )
    long_header = struct.pack("<4sBBHII", b"EEXF", 1, 0, 0, 2**32 - 1, 0) + bytes(64)
    hostile = [_rewrite(_example(), header), _rewrite(_example(), fitting), long_header]
    tracemalloc.start()
    for data in hostile:
        with pytest.raises(WireError):
            decode(data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"EEXF\x02" + bytes(27), Status.UNSUPPORTED_VERSION),
        (bytes(wire.FRAME_CAP_BYTES + 1), Status.TOO_LARGE),
        (bytes(32), Status.MALFORMED),
        (b"EEXF\x01\x01" + bytes(26), Status.MALFORMED),
        (b"", Status.MALFORMED),
    ],
)
def test_the_error_carries_the_status_to_answer_with(data: bytes, status: Status) -> None:
    with pytest.raises(WireError) as caught:
        decode(data)
    assert caught.value.status == status


def test_what_a_receiver_would_refuse_is_not_sent() -> None:
    header = Header(kind=Kind.REQUEST, request_id=bytes(16), bundle_digest=bytes(16))
    with pytest.raises(WireError) as too_large:
        encode(header, [WireTensor.of("a", np.zeros(100, np.float32))], cap_bytes=256)
    assert too_large.value.status == Status.TOO_LARGE
    same_name = [WireTensor.of("a", np.zeros(1, np.int8))] * 2
    for refused in (
        [WireTensor("a", "i1", np.zeros(4, np.float32))],
        [WireTensor("a", "i1", np.zeros(4, np.int8), (float("nan"),), (0,))],
        [WireTensor("a", "i1", np.zeros((0, 4), np.int8))],
        [WireTensor("a", "i1", np.zeros((2, 2), np.int8), (1.0,), (0,), 1)],
        same_name,
    ):
        with pytest.raises(WireError):
            encode(header, refused)
    with pytest.raises(WireError):
        WireTensor.of("a", np.array([object()]))


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.integers(0, 255))
def test_a_cancel_has_one_size_and_names_its_request(request_id: bytes, digest: bytes, boundary: int) -> None:
    data = cancel(request_id, bundle_digest=digest, boundary=boundary)
    assert len(data) == CANCEL_BYTES
    frame = decode(data)
    assert frame.tensors == ()
    header = frame.header
    assert (header.kind, header.request_id, header.bundle_digest, header.stage_in) == (
        Kind.CANCEL,
        request_id,
        digest,
        boundary,
    )


@given(st.integers(5, 200))
def test_a_kind_of_a_later_version_is_refused_as_malformed(kind: int) -> None:
    data = cancel(bytes(16), bundle_digest=bytes(16), boundary=0)
    length = int.from_bytes(data[8:12], "little")
    packed = msgspec.msgpack.encode([kind, *msgspec.msgpack.decode(data[16 : 16 + length])[1:]])
    prefix = struct.pack("<4sBBHII", b"EEXF", 1, 0, 0, len(packed), zlib.crc32(packed))
    with pytest.raises(WireError) as caught:
        decode(prefix + packed + bytes(-(16 + len(packed)) % 16))
    assert caught.value.status == Status.MALFORMED


def test_every_status_but_ok_has_its_word() -> None:
    words = [status.reason for status in Status if status is not Status.OK]
    assert None not in words
    assert len(set(words)) == len(words)
    assert Status.OK.reason is None
