"""Codecs that pack: the error they state holds, sizes are honest, and hostile bytes end as WireError."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import msgspec
import numpy as np
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lz4 import block
from numpy.typing import NDArray
from PIL import Image

from edgeexit.bundle.manifest import CodecName, TensorSpec
from edgeexit.errors import MissingExtra, WireError
from edgeexit.transport import storage, wire
from edgeexit.transport.affine import SCALES_CAP
from edgeexit.transport.codecs import (
    abilities_for,
    decode_tensors,
    encode_tensors,
    is_packed,
    payload_bytes,
    sent_bytes,
    size_varies,
    uncompressed,
)
from edgeexit.transport.storage import Storage
from edgeexit.transport.wire import Header, Kind, WireTensor

STEPS: dict[CodecName, tuple[int, str]] = {
    "int8": (8, "tensor"),
    "int8-token": (8, "token"),
    "int8-channel": (8, "channel"),
    "int8-zstd": (8, "tensor"),
    "int4": (4, "tensor"),
    "int4-token": (4, "token"),
    "int4-channel": (4, "channel"),
    "int4-zstd": (4, "tensor"),
    "int4-token-zstd": (4, "token"),
    "int8-lz4": (8, "tensor"),
    "int4-lz4": (4, "tensor"),
    "pool4-int8": (8, "token"),
}
HEADER = Header(kind=Kind.REQUEST, request_id=bytes(16), bundle_digest=bytes(16))

_finite = st.floats(-1e6, 1e6, width=32)
_activations = st.one_of(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=_finite),
    hnp.arrays(np.float32, st.tuples(st.just(1), st.integers(1, 40), st.integers(1, 9)), elements=_finite),
)
_images = hnp.arrays(np.uint8, st.sampled_from([(1, 1, 8, 8), (1, 3, 16, 9), (1, 7, 12, 3), (1, 33, 20, 1)]))


def _there_and_back(array: NDArray[np.float32], codec: CodecName) -> NDArray[np.float32]:
    spec = TensorSpec(name="a", shape=array.shape)
    sent = encode_tensors({"a": array}, codec)
    data = wire.encode(HEADER, sent)
    assert len(data) <= sent_bytes(sent) <= payload_bytes([spec], codec)
    back = decode_tensors(wire.decode(data).tensors, [spec])["a"]
    assert back.shape == array.shape
    assert back.dtype == np.float32
    return back.astype(np.float32, copy=False)


def _range(array: NDArray[np.float32], per: str) -> NDArray[np.float64]:
    """Largest minus smallest value, zero among them, of what shares a scale; broadcasts to the array."""
    axis = {("token", 3): 1, ("channel", 3): 2, ("channel", 4): 1}.get((per, array.ndim))
    others = tuple(index for index in range(array.ndim) if index != axis)
    high = np.maximum(array.max(axis=others, keepdims=True), 0.0).astype(np.float64)
    low = np.minimum(array.min(axis=others, keepdims=True), 0.0).astype(np.float64)
    span: NDArray[np.float64] = high - low
    return span


@pytest.mark.parametrize("codec", STEPS)
@given(array=_activations)
def test_values_come_back_within_one_step_and_zero_stays(
    codec: CodecName, array: NDArray[np.float32]
) -> None:
    bits, per = STEPS[codec]
    back = _there_and_back(array, codec)
    step = _range(array, per) / (2**bits - 1)
    assert (np.abs(back.astype(np.float64) - array) <= 1.01 * step + 1e-30).all()
    assert not back[array == 0.0].any()


@pytest.mark.parametrize("codec", ["u8-zstd", "u8-lz4"])
@given(pixels=_images)
def test_compressed_pixels_are_exact(codec: CodecName, pixels: NDArray[np.uint8]) -> None:
    image = pixels.astype(np.float32) / np.float32(255.0)
    assert np.array_equal(_there_and_back(image, codec), image)


@pytest.mark.parametrize("codec", ["bottleneck8", "bottleneck2-zstd"])
@given(
    codes=hnp.arrays(np.int8, (1, 5, 3), elements=st.integers(-8, 7)),
    off=st.floats(-0.4375, 0.4375, width=32),
)
def test_learnt_codes_are_whole_numbers_of_four_bits(
    codec: CodecName, codes: NDArray[np.int8], off: float
) -> None:
    near = codes.astype(np.float32) + np.float32(off)
    assert np.array_equal(_there_and_back(near, codec), codes)
    far = np.full((1, 2, 2), 99.0, np.float32)
    assert np.array_equal(_there_and_back(far, codec), np.full((1, 2, 2), 7.0))


@given(_images, st.sampled_from(["jpeg95", "jpeg85", "jpeg70"]))
def test_any_image_travels_as_jpeg_within_its_bound(pixels: NDArray[np.uint8], codec: CodecName) -> None:
    back = _there_and_back(pixels.astype(np.float32) / np.float32(255.0), codec)
    assert 0.0 <= float(back.min()) <= float(back.max()) <= 1.0


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (1, 32, 32, 3)])
def test_a_smooth_image_is_smaller_as_jpeg_and_close(shape: tuple[int, ...]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 32, dtype=np.float32)[:, None], (32, 32))
    image = np.empty(shape, np.float32)
    image[:] = ramp.reshape([1, 1, 32, 32] if shape[1] == 1 else [1, 32, 32, 1])  # (32, 32) → shape
    assert float(np.abs(_there_and_back(image, "jpeg95") - image).max()) < 0.02
    sizes = [encode_tensors({"a": image}, codec)[0].data.nbytes for codec in ("jpeg95", "jpeg70")]
    assert sizes[1] <= sizes[0] < image.size


def test_two_values_share_a_byte_and_tokens_have_their_own_scale() -> None:
    tokens = np.array([[[1.0, -1.0, 0.5], [1000.0, 0.0, 500.0]]], np.float32)
    sent = encode_tensors({"a": tokens}, "int4-token")[0]
    assert (sent.storage, sent.data.nbytes, sent.shape, sent.axis) == (Storage.NIBBLES, 3, (1, 2, 3), 1)
    assert np.allclose(_there_and_back(tokens, "int4-token")[0, 0], tokens[0, 0], atol=0.15)
    assert np.abs(_there_and_back(tokens, "int4")[0, 0] - tokens[0, 0]).max() == 1.0


def test_more_scales_than_a_header_holds_become_one() -> None:
    many = np.ones((1, SCALES_CAP + 1, 2), np.float32)
    assert encode_tensors({"a": many}, "int8-token")[0].axis is None
    assert encode_tensors({"a": many[:, 1:]}, "int8-token")[0].axis == 1
    pair = encode_tensors({"a": many[:, 1:], "b": many[:, 1:]}, "int8-token")
    assert [tensor.axis for tensor in pair] == [None, None]
    most = np.random.default_rng(0).normal(size=(1, SCALES_CAP, 2)).astype(np.float32)
    wire.encode(HEADER, encode_tensors({"a": most}, "int8-token"))  # it fits in a header


def test_what_does_not_shrink_travels_as_it_is() -> None:
    noise = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    assert encode_tensors({"a": noise}, "u8-zstd")[0].storage is Storage.PLAIN
    assert encode_tensors({"a": np.zeros_like(noise)}, "u8-zstd")[0].storage is Storage.ZSTD
    assert encode_tensors({"a": noise}, "u8-lz4")[0].storage is Storage.PLAIN
    assert encode_tensors({"a": np.zeros_like(noise)}, "u8-lz4")[0].storage is Storage.LZ4


def test_codecs_say_what_both_ends_must_be_able_to_do() -> None:
    assert abilities_for("int8-token", 1) == frozenset()
    assert abilities_for("int4-zstd", 1) == {"nibbles", "zstd"}
    assert abilities_for("jpeg85", 0) == {"jpeg"}
    assert abilities_for("pool4-int8", 2) == {"pool4-int8@2"}
    assert abilities_for("bottleneck4-zstd", 1) == {"nibbles", "zstd", "bottleneck4-zstd@1"}
    assert storage.abilities() == {"nibbles", "zstd", "lz4", "jpeg"}
    assert [size_varies(codec) for codec in ("int4", "u8-zstd", "jpeg95")] == [False, True, True]
    assert [uncompressed(codec) for codec in ("int4-token-zstd", "u8-lz4", "jpeg95")] == [
        *("int4-token", "u8", "jpeg95")
    ]
    assert [is_packed(codec) for codec in ("int4", "pool4-int4", "bottleneck8-zstd")] == [False, True, True]
    with pytest.raises(WireError):
        abilities_for("lzma", 1)


def test_without_the_library_both_ends_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = np.zeros((1, 16, 16), np.float32)
    sent = encode_tensors({"a": flat}, "int8-zstd")
    monkeypatch.setattr(storage, "_zstd_module", lambda: None)
    with pytest.raises(WireError, match=r"edgeexit\[zstd\]"):
        encode_tensors({"a": flat}, "int8-zstd")
    with pytest.raises(WireError, match=r"edgeexit\[zstd\]"):
        decode_tensors(sent, [TensorSpec(name="a", shape=(1, 16, 16))])
    monkeypatch.setattr(storage, "abilities", lambda: frozenset({"nibbles"}))
    for wanted in ("zstd", "lz4", "jpeg"):
        with pytest.raises(MissingExtra):
            storage.require_abilities(frozenset({wanted}), needed_for="converting")


# hostile bytes


def _packed(stored: bytes, kind: Storage, shape: tuple[int, ...], dtype: str = "i1") -> bytes:
    tensor = WireTensor(
        "a", dtype, np.frombuffer(stored, np.uint8), (1.0,), (0,), storage=kind, packed_shape=shape
    )
    return wire.encode(HEADER, [tensor])


def _read(data: bytes, shape: tuple[int, ...]) -> None:
    decode_tensors(wire.decode(data).tensors, [TensorSpec(name="a", shape=shape)])


@given(
    st.binary(min_size=1, max_size=63), st.sampled_from([Storage.ZSTD, Storage.NIBBLES_ZSTD, Storage.JPEG])
)
def test_any_stored_bytes_are_values_or_a_wire_error(stored: bytes, kind: Storage) -> None:
    try:
        data = _packed(stored, kind, (1, 1, 12, 12), "u1" if kind is Storage.JPEG else "i1")
        _read(data, (1, 1, 12, 12))
    except WireError:
        return
    raise AssertionError("random bytes are no zstd frame and no JPEG")


@given(st.data(), st.sampled_from(["int4-zstd", "u8-zstd", "int4-lz4", "u8-lz4", "jpeg85"]))
def test_a_damaged_payload_is_values_or_a_wire_error(data: st.DataObject, codec: CodecName) -> None:
    image = np.zeros((1, 1, 16, 16), np.float32)
    image[..., 4:9] = 0.7
    sent = encode_tensors({"a": image}, codec)[0]
    stored = bytearray(sent.data.tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    kept = bytes(stored[: data.draw(st.integers(1, len(stored)))])
    with contextlib.suppress(WireError):
        _read(_packed(kept, sent.storage, image.shape, sent.dtype), image.shape)


def test_an_lz4_block_holds_just_what_the_header_says() -> None:
    bomb = block.compress(bytes(1 << 24), store_size=False)  # 16 MiB in 64 kB
    for kind, held in ((Storage.LZ4, 1 << 19), (Storage.NIBBLES_LZ4, 1 << 20)):
        with pytest.raises(WireError, match="lz4"):
            _read(_packed(bomb, kind, (1, held)), (1, held))
        few = block.compress(bytes(200), store_size=False)
        with pytest.raises(WireError, match="200 bytes"):
            _read(_packed(few, kind, (1, held)), (1, held))


def test_bombs_are_refused_by_what_they_declare() -> None:
    bomb = zstd.compress(bytes(1 << 28), 1)  # 256 MiB in a few kilobytes
    assert len(bomb) < 1 << 15
    with pytest.raises(WireError, match="268435456"):
        _read(_packed(bomb, Storage.ZSTD, (1, 1 << 19)), (1, 1 << 19))
    # One that keeps its size to itself.
    silent = zstd.ZstdCompressor(1)
    hidden = silent.compress(bytes(1 << 20)) + silent.flush()
    with pytest.raises(WireError):
        _read(_packed(hidden, Storage.ZSTD, (1, 1 << 19)), (1, 1 << 19))
    file = io.BytesIO()
    Image.new("L", (5000, 5000)).save(file, "JPEG")
    with pytest.raises(WireError, match="5000"):
        _read(_packed(file.getvalue(), Storage.JPEG, (1, 1, 900, 900), "u1"), (1, 1, 900, 900))
    claimed = bytearray(file.getvalue())
    frame = claimed.index(b"\xff\xc0")
    claimed[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    with pytest.raises(WireError):
        _read(_packed(bytes(claimed), Storage.JPEG, (1, 1, 900, 900), "u1"), (1, 1, 900, 900))


def test_what_tensors_unpack_to_has_one_cap_together() -> None:
    zeros = zstd.compress(bytes(700_000), 1)
    pair = [
        WireTensor(name, "i1", np.frombuffer(zeros, np.uint8), (1.0,), (0,), None, Storage.ZSTD, (1, 700_000))
        for name in ("a", "b")
    ]
    with pytest.raises(WireError, match="1400000 bytes"):
        wire.encode(HEADER, pair)


@pytest.mark.parametrize(
    ("codec", "dtype", "shape", "stored_bytes"),
    [
        (0, "i1", (4,), 3),
        (1, "i1", (4,), 4),
        (1, "i1", (4,), 0),
        (2, "i1", (4,), 4),
        (6, "i1", (8,), 4),
        (7, "i1", (4,), 2),
        (3, "i1", (4,), 3),
        (3, "f4", (2,), 4),
        (4, "i1", (4,), 2),
        (4, "u1", (4,), 1),
        (5, "u1", (4,), 100),
        (5, "i1", (1, 1, 8, 8), 64),
        (5, "u1", (1, 1, 8, 8), 64 + 2401),
        (6, "i1", (4,), 4),
        (-1, "i1", (4,), 4),
        (2**62, "i1", (4,), 4),
    ],
)
def test_sizes_that_no_storage_has_are_refused_before_any_is_unpacked(
    codec: int, dtype: str, shape: tuple[int, ...], stored_bytes: int
) -> None:
    raw_bytes = int(np.prod(shape)) * wire.WIRE_DTYPES[dtype].itemsize
    header = msgspec.structs.replace(
        HEADER, tensors=(wire.TensorHeader("a", dtype, shape, raw_bytes, stored_bytes, codec, (1.0,), (0,)),)
    )
    packed = msgspec.msgpack.encode(header)
    prefix = struct.pack("<4sBBHII", b"EEXF", 1, 0, 0, len(packed), zlib.crc32(packed))
    body = prefix + packed + bytes(-(16 + len(packed)) % 16) + bytes(wire.aligned(stored_bytes))
    with pytest.raises(WireError):
        wire.decode(body)
