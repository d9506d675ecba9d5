"""Codecs: what comes back is what was sent, within what the codec promises."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgeexit.bundle.manifest import CodecName, TensorSpec
from edgeexit.errors import WireError
from edgeexit.transport import frames, wire
from edgeexit.transport.codecs import codec_name, decode_tensors, encode_tensors, payload_bytes, size_varies
from edgeexit.transport.protocol import Tensor
from edgeexit.transport.wire import Header, Kind, WireTensor

CODECS: tuple[CodecName, ...] = get_args(CodecName)

_shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)
_activations = hnp.arrays(np.float32, _shapes, elements=st.floats(-1e6, 1e6, width=32))


def _spec(name: str, array: Tensor) -> TensorSpec:
    return TensorSpec(name=name, shape=array.shape)


def _there_and_back(array: NDArray[np.float32], codec: CodecName) -> NDArray[np.float32]:
    header = Header(kind=Kind.REQUEST, request_id=bytes(16), bundle_digest=bytes(16))
    frame = wire.decode(wire.encode(header, encode_tensors({"a": array}, codec)))
    back = decode_tensors(frame.tensors, [_spec("a", array)])["a"]
    assert back.dtype == np.float32
    assert back.shape == array.shape
    return back.astype(np.float32, copy=False)


@given(_activations)
def test_raw_is_exact(array: NDArray[np.float32]) -> None:
    assert np.array_equal(_there_and_back(array, "raw"), array)


@given(hnp.arrays(np.float32, _shapes, elements=st.floats(-6e4, 6e4, width=32)))
def test_f16_keeps_eleven_bits(array: NDArray[np.float32]) -> None:
    assert np.allclose(_there_and_back(array, "f16"), array, rtol=2.0**-11, atol=2.0**-24)


def test_f16_has_no_infinity() -> None:
    back = _there_and_back(np.array([1e6, -1e6], np.float32), "f16")
    assert back.tolist() == [65504.0, -65504.0]


@given(_activations)
def test_int8_is_within_one_step_and_keeps_zero(array: NDArray[np.float32]) -> None:
    back = _there_and_back(array, "int8")
    step = (max(float(array.max()), 0.0) - min(float(array.min()), 0.0)) / 255.0
    assert float(np.abs(back - array).max()) <= 1.01 * step + 1e-30
    assert not back[array == 0.0].any()


def test_u8_is_lossless_for_images() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    image = pixels.astype(np.float32) / 255.0
    assert np.array_equal(_there_and_back(image, "u8"), image)
    assert np.array_equal(encode_tensors({"a": image}, "u8")[0].data, pixels)


@given(_activations)
def test_u8_clips_to_the_unit_interval(array: NDArray[np.float32]) -> None:
    back = _there_and_back(array, "u8")
    assert float(np.abs(back - np.clip(array, 0.0, 1.0)).max()) <= 0.502 / 255.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("codec", ["int8", "u8"])
def test_what_eight_bits_cannot_hold_is_refused(codec: CodecName, value: float) -> None:
    with pytest.raises(WireError):
        encode_tensors({"a": np.array([0.0, value], np.float32)}, codec)


@pytest.mark.parametrize("codec", CODECS)
def test_integers_travel_as_they_are(codec: CodecName) -> None:
    array = np.arange(-3, 3, dtype=np.int32)
    sent = encode_tensors({"a": array}, codec)
    back = decode_tensors(sent, [TensorSpec(name="a", shape=(6,), dtype="int32")])["a"]
    assert np.array_equal(back, array)


@given(
    st.lists(
        st.tuples(st.text("abcxyz", min_size=1, max_size=20), _shapes),
        min_size=1,
        max_size=4,
        unique_by=lambda item: item[0],
    ),
    st.sampled_from([codec for codec in CODECS if not size_varies(codec)]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
)
def test_the_stated_size_is_the_size_sent(
    described: list[tuple[str, tuple[int, ...]]], codec: CodecName, frame: int, boundary: int
) -> None:
    arrays = {
        name: np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        for name, shape in described
    }
    sent = frames.request(
        bytes(16),
        bundle_digest="ab" * 32,
        boundary=boundary,
        last_stage=boundary,
        frame=frame,
        budget_left_ms=12.5,
        tensors=encode_tensors(arrays, codec),
    )
    stated = payload_bytes([_spec(name, array) for name, array in arrays.items()], codec)
    # A zero point takes one byte less where it is small.
    scales = sum(len(tensor.scale) for tensor in wire.decode(sent).tensors)
    assert 0 <= stated - len(sent) <= wire.ALIGNMENT + scales


def test_a_boundary_takes_nothing_but_its_own_tensors() -> None:
    array = np.ones((1, 4), np.float32)
    good = encode_tensors({"a": array}, "raw")
    spec = TensorSpec(name="a", shape=(1, 4))
    whole = TensorSpec(name="a", shape=(1, 4), dtype="int32")
    for received, specs in (
        (good, [TensorSpec(name="b", shape=(1, 4))]),
        (good, [TensorSpec(name="a", shape=(4, 1))]),
        (good, [spec, TensorSpec(name="b", shape=(1, 4))]),
        ((), [spec]),
        (good, [whole]),
        (encode_tensors({"a": array}, "int8"), [whole]),
        ([WireTensor("a", "i1", np.ones((1, 4), np.int8))], [spec]),
        ([WireTensor("a", "f4", array, (1.0,), (0,))], [spec]),
    ):
        with pytest.raises(WireError):
            decode_tensors(received, specs)


def test_one_scale_for_each_channel() -> None:
    codes = np.array([[1, 1], [3, 3]], np.int8)
    received = [WireTensor("a", "i1", codes, (0.5, 2.0), (1, 0), 1)]
    back = decode_tensors(received, [TensorSpec(name="a", shape=(2, 2))])["a"]
    assert np.array_equal(back, np.array([[0.0, 2.0], [1.0, 6.0]], np.float32))


def test_bfloat16_is_widened() -> None:
    values = np.array([1.5, -2.0, 0.0], np.float32)
    bits = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    back = decode_tensors([WireTensor("a", "bf16", bits)], [TensorSpec(name="a", shape=(3,))])["a"]
    assert np.array_equal(back, values)


@given(
    st.floats(min_value=5e-324, max_value=1.7e308),
    st.integers(-(2**31), 2**31 - 1),
    hnp.arrays(np.int8, (3,)),
)
def test_hostile_scales_give_numbers_and_no_warning(
    scale: float, zero_point: int, codes: NDArray[np.int8]
) -> None:
    received = [WireTensor("a", "i1", codes, (scale,), (zero_point,))]
    assert decode_tensors(received, [TensorSpec(name="a", shape=(3,))])["a"].shape == (3,)


def test_codec_names_are_checked() -> None:
    assert [codec_name(name) for name in CODECS] == list(CODECS)
    with pytest.raises(WireError):
        codec_name("pickle")
