"""Adverts: read back as written; anything else is one typed error."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.errors import WireError
from edgeexit.transport.adverts import (
    ADVERT_CAP_BYTES,
    Advert,
    BundleAdvert,
    decode_advert,
    encode_advert,
    lost,
)

ADVERT = Advert(
    state="ready",
    boot_id="0123456789abcdef",
    sequence=7,
    bundles=(BundleAdvert(digest12="a" * 12, stages=(0, 1, 2), service_ms=(1.5, None, 2.0)),),
    queue_depth=2,
    free_slots=1,
)


def test_an_advert_is_read_back() -> None:
    assert decode_advert(encode_advert(ADVERT)) == ADVERT
    assert ADVERT.serving
    assert not lost("0123456789abcdef").serving


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = encode_advert(ADVERT)[:-1] + b',"mood":"fine"}'
    assert decode_advert(later) == ADVERT


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_an_advert_or_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode_advert(payload)


@pytest.mark.parametrize(
    "field",
    [
        b'"boot_id":"../etc"',
        b'"boot_id":"0123456789abcdef","sequence":-1',
        b'"boot_id":"0123456789abcdef","queue_depth":1e400',
        b'"boot_id":"0123456789abcdef","bundles":[{"digest12":"zz","stages":[0]}]',
        b'"boot_id":"0123456789abcdef","bundles":[{"digest12":"aaaaaaaaaaaa","stages":[0],"service_ms":[1,2]}]',
        b'"boot_id":"0123456789abcdef","bundles":[{"digest12":"aaaaaaaaaaaa","stages":[0],"service_ms":[-1]}]',
    ],
)
def test_a_field_out_of_range_is_a_wire_error(field: bytes) -> None:
    with pytest.raises(WireError):
        decode_advert(b'{"state":"ready",' + field + b"}")


def test_an_overlong_or_deep_advert_is_refused() -> None:
    with pytest.raises(WireError):
        decode_advert(b" " * (ADVERT_CAP_BYTES + 1))
    with pytest.raises(WireError):
        decode_advert(b'{"x":' + b"[" * (ADVERT_CAP_BYTES - 10))


def test_the_cap_holds_many_bundles() -> None:
    bundle = BundleAdvert(
        digest12="b" * 12, name="n" * 40, stages=tuple(range(16)), service_ms=(123.456,) * 16
    )
    payload = encode_advert(msgspec.structs.replace(ADVERT, bundles=(bundle,) * 32))
    assert len(payload) <= ADVERT_CAP_BYTES
