"""Adverts: numbered, and never larger than devices read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.gateway.adverts import Advertiser
from edgeexit.gateway.service import Load
from edgeexit.transport.adverts import ADVERT_CAP_BYTES, BundleAdvert, decode_advert

BUNDLES = st.builds(
    lambda number, stages, name: BundleAdvert(
        digest12=f"{number:012x}",
        name=name,
        stages=tuple(range(stages)),
        service_ms=tuple(1234.567 for _ in range(stages)),
    ),
    st.integers(0, 2**48 - 1),
    st.integers(1, 64),
    st.text(max_size=64),
)


def test_sequence_rises_within_one_life() -> None:
    advertiser = Advertiser()
    load = Load(queue_depth=1, free_slots=2, bundles=())
    adverts = [decode_advert(advertiser.advert("ready", load)) for _ in range(3)]
    assert [advert.sequence for advert in adverts] == [1, 2, 3]
    assert {advert.boot_id for advert in adverts} == {advertiser.boot_id}
    assert Advertiser().boot_id != advertiser.boot_id
    # What a development environment has installed.
    assert {advert.unpacks for advert in adverts} == {("jpeg", "lz4", "nibbles", "zstd")}


@given(st.lists(BUNDLES, max_size=64))
def test_advert_is_always_readable(bundles: list[BundleAdvert]) -> None:
    data = Advertiser().advert("ready", Load(queue_depth=0, free_slots=1, bundles=tuple(bundles)))
    assert len(data) <= ADVERT_CAP_BYTES
    told = decode_advert(data).bundles
    assert told == tuple(bundles)[: len(told)]
