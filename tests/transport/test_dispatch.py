"""Which gateway is asked: fresh ones with the bundle, the less loaded of two, none that is silent."""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.transport.adverts import Advert, BundleAdvert, GatewayState, lost
from edgeexit.transport.dispatch import MISSES_TO_OPEN, Dispatch
from edgeexit.transport.status import Status

BUNDLE = "a" * 12
BOOT = "0" * 16


class ManualClock:
    def __init__(self) -> None:
        self.now_ms = 0.0

    def __call__(self) -> float:
        return self.now_ms


class Field:
    """A table and the gateways that advertise to it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = Dispatch(clock=self.clock, random=Random(1))
        self.sequence = 0

    def advert(
        self,
        gateway: str,
        *,
        state: GatewayState = "ready",
        boot_id: str = BOOT,
        bundle: str = BUNDLE,
        stages: tuple[int, ...] = (0, 1, 2),
        service_ms: float | None = 10.0,
        queue_depth: int = 0,
        retained: bool = False,
        sequence: int | None = None,
        unpacks: tuple[str, ...] = (),
    ) -> bool:
        self.sequence += 1
        advert = Advert(
            state=state,
            boot_id=boot_id,
            sequence=self.sequence if sequence is None else sequence,
            bundles=(BundleAdvert(digest12=bundle, stages=stages, service_ms=(service_ms,) * len(stages)),),
            queue_depth=queue_depth,
            unpacks=unpacks,
        )
        return self.table.hear(gateway, advert, retained=retained)

    def choose(self, boundary: int = 1) -> str | None:
        return self.table.choose(BUNDLE, boundary, 2)


@pytest.fixture
def field() -> Field:
    return Field()


def test_without_adverts_there_is_no_gateway(field: Field) -> None:
    assert field.choose() is None
    assert field.table.able(BUNDLE, 2).gateways == 0


def test_an_advert_makes_a_gateway_usable_until_it_grows_stale(field: Field) -> None:
    field.advert("gw-1")
    assert field.choose() == "gw-1"
    field.clock.now_ms = 2999.0
    assert field.choose() == "gw-1"
    field.clock.now_ms = 3001.0
    assert field.choose() is None


def test_a_retained_advert_proves_nothing_about_now(field: Field) -> None:
    field.advert("gw-1", retained=True)
    assert field.choose() is None
    field.advert("gw-1")
    assert field.choose() == "gw-1"


def test_a_gateway_without_this_bundle_or_stage_is_never_chosen(field: Field) -> None:
    field.advert("other", bundle="b" * 12)
    field.advert("deep", stages=(1, 2))
    assert field.choose(0) is None
    assert field.choose(1) == "deep"


@pytest.mark.parametrize("state", ["init", "draining", "disconnected", "lost"])
def test_a_gateway_that_does_not_serve_is_not_chosen(field: Field, state: GatewayState) -> None:
    field.advert("gw-1")
    field.advert("gw-1", state=state)
    assert field.choose() is None


def test_a_will_ends_a_gateway_at_once_and_a_late_one_does_not(field: Field) -> None:
    field.advert("gw-1", boot_id="1" * 16)
    field.advert("gw-1", boot_id="2" * 16)
    assert not field.table.hear("gw-1", lost("1" * 16), retained=False)
    assert field.choose() == "gw-1"
    assert field.table.hear("gw-1", lost("2" * 16), retained=False)
    assert field.choose() is None


def test_an_advert_out_of_order_is_passed_over(field: Field) -> None:
    field.advert("gw-1", sequence=5, queue_depth=0)
    field.advert("gw-1", state="draining", sequence=4)
    assert field.choose() == "gw-1"


def test_an_earlier_start_does_not_come_back(field: Field) -> None:
    field.advert("gw-1", boot_id="1" * 16)
    field.advert("gw-1", boot_id="2" * 16, state="draining")
    field.advert("gw-1", boot_id="1" * 16)
    assert field.choose() is None


def test_a_gateway_may_come_back_after_its_will(field: Field) -> None:
    field.advert("gw-1")
    field.table.hear("gw-1", lost(BOOT), retained=False)
    field.advert("gw-1")
    assert field.choose() == "gw-1"


def test_the_less_loaded_of_two_is_chosen(field: Field) -> None:
    field.advert("slow", service_ms=80.0)
    field.advert("fast", service_ms=5.0)
    assert {field.choose() for _ in range(50)} == {"fast"}
    field.advert("fast", service_ms=5.0, queue_depth=40)
    assert {field.choose() for _ in range(50)} == {"slow"}


def test_own_requests_count_before_the_advert_shows_them(field: Field) -> None:
    field.advert("gw-1")
    field.advert("gw-2")
    chosen = {field.table.choose(BUNDLE, 1, 2, lambda: ["gw-1"]) for _ in range(50)}
    assert chosen == {"gw-2"}


def test_equal_gateways_share_the_work(field: Field) -> None:
    for name in ("gw-1", "gw-2", "gw-3", "gw-4"):
        field.advert(name)
    counts = Counter(field.choose() for _ in range(400))
    assert len(counts) == 4
    assert min(counts.values()) > 40


def test_the_farther_gateway_is_chosen_less(field: Field) -> None:
    field.advert("near")
    field.advert("far")
    field.table.answered("near", 2.0)
    field.table.answered("far", 200.0)
    assert {field.choose() for _ in range(50)} == {"near"}


def test_a_busy_gateway_rests_as_long_as_it_asked(field: Field) -> None:
    field.advert("gw-1")
    field.table.refused("gw-1", BUNDLE, Status.BUSY, 200.0)
    assert field.choose() is None
    assert field.table.able(BUNDLE, 2).gateways == 0
    field.clock.now_ms = 201.0
    assert field.choose() == "gw-1"


def test_a_gateway_that_lost_the_bundle_is_not_asked_again_until_it_has_it(field: Field) -> None:
    field.advert("gw-1")
    field.table.refused("gw-1", BUNDLE, Status.UNKNOWN_BUNDLE, None)
    field.advert("gw-1", service_ms=11.0)
    assert field.choose() is None
    field.advert("gw-1", bundle="b" * 12)
    field.advert("gw-1")
    assert field.choose() == "gw-1"


def test_silence_opens_the_circuit_and_only_a_ping_closes_it(field: Field) -> None:
    field.advert("gw-1")
    for _ in range(MISSES_TO_OPEN):
        assert field.choose() == "gw-1"
        field.table.missed("gw-1")
    assert field.choose() is None
    assert field.table.probes_due() == ()
    field.clock.now_ms = 1001.0
    assert field.table.probes_due() == ("gw-1",)
    assert field.table.probes_due() == ()
    assert field.choose() is None
    field.table.answered("gw-1", 3.0)
    assert field.choose() == "gw-1"


def test_a_ping_in_vain_waits_longer_for_the_next(field: Field) -> None:
    field.advert("gw-1")
    for _ in range(MISSES_TO_OPEN):
        field.table.missed("gw-1")
    field.clock.now_ms = 1001.0
    assert field.table.probes_due() == ("gw-1",)
    field.table.missed("gw-1")
    field.clock.now_ms = 2500.0
    assert field.table.probes_due() == ()
    field.advert("gw-1")
    field.clock.now_ms = 3002.0
    assert field.table.probes_due() == ("gw-1",)


def test_after_a_lost_link_nobody_is_there_until_heard(field: Field) -> None:
    field.advert("gw-1")
    for _ in range(MISSES_TO_OPEN):
        field.table.missed("gw-1")
    field.advert("gw-2")
    field.clock.now_ms = 1001.0
    field.table.probes_due()
    field.table.link_lost()
    assert field.choose() is None
    field.advert("gw-1")
    assert field.table.probes_due() == ("gw-1",)
    field.advert("gw-2")
    assert field.choose() == "gw-2"


def test_a_ping_confirms_a_retained_advert(field: Field) -> None:
    field.advert("gw-1", retained=True)
    assert field.table.probes_due() == ("gw-1",)
    assert field.table.probes_due() == ()
    field.table.answered("gw-1", 3.0)
    assert field.choose() == "gw-1"
    field.advert("gone", state="lost", retained=True)
    field.advert("silent", retained=True)
    assert field.table.probes_due() == ("silent",)
    field.table.missed("silent")
    assert field.table.probes_due() == ()
    assert {field.choose() for _ in range(50)} == {"gw-1"}
    field.advert("silent")
    assert {field.choose() for _ in range(50)} == {"silent"}


def test_the_copy_retained_of_a_known_advert_is_confirmed_too(field: Field) -> None:
    field.advert("gw-1", sequence=4)
    field.table.link_lost()
    field.advert("gw-1", sequence=4, retained=True)
    assert field.choose() is None
    assert field.table.probes_due() == ("gw-1",)


def test_failures_open_the_circuit_and_an_answer_closes_it(field: Field) -> None:
    field.advert("gw-1")
    field.table.refused("gw-1", BUNDLE, Status.FAILED, None)
    field.table.refused("gw-1", BUNDLE, Status.FAILED, None)
    field.table.answered("gw-1", 1.0)
    field.table.refused("gw-1", BUNDLE, Status.FAILED, None)
    assert field.choose() == "gw-1"


def test_a_refusal_for_lateness_is_no_fault_of_the_gateway(field: Field) -> None:
    field.advert("gw-1")
    for _ in range(10):
        field.table.refused("gw-1", BUNDLE, Status.TOO_LATE, None)
    assert field.choose() == "gw-1"


def test_a_flood_of_gateways_does_not_push_out_fresh_ones(field: Field) -> None:
    field.advert("gw-1")
    for number in range(3000):
        field.advert(f"flood-{number}", bundle="b" * 12)
    assert field.choose() == "gw-1"
    field.clock.now_ms = 5000.0
    field.advert("gw-2")
    assert field.choose() == "gw-2"


def test_nobody_is_known_by_a_reply_alone(field: Field) -> None:
    field.table.answered("ghost", 1.0)
    field.table.missed("ghost")
    field.table.refused("ghost", BUNDLE, Status.BUSY, 1.0)
    assert field.choose() is None


def test_adverts_without_service_times_are_tried(field: Field) -> None:
    advert = Advert(state="ready", boot_id=BOOT, bundles=(BundleAdvert(digest12=BUNDLE, stages=(0, 1, 2)),))
    field.table.hear("new", advert, retained=False)
    field.advert("known")
    assert field.choose() == "new"
    assert msgspec.structs.replace(advert, sequence=1).serving


def test_a_packed_request_goes_only_where_it_can_be_unpacked(field: Field) -> None:
    field.advert("old")
    field.advert("new", unpacks=("jpeg", "zstd"))
    field.advert("other", unpacks=("nibbles",), bundle="b" * 12)
    for _ in range(20):
        assert field.table.choose(BUNDLE, 1, 2, needed=frozenset({"zstd"})) == "new"
    assert field.table.choose(BUNDLE, 1, 2, needed=frozenset({"nibbles"})) is None
    assert field.table.able(BUNDLE, 2).abilities == {"jpeg", "zstd"}
    field.clock.now_ms = 3001.0
    assert field.table.able(BUNDLE, 2).abilities == frozenset()


gateways = st.sampled_from(["a", "b"])
events = st.one_of(
    st.tuples(st.just("hear"), gateways, st.sampled_from(["ready", "draining", "lost"]), st.booleans()),
    st.tuples(st.just("refused"), gateways, st.sampled_from(list(Status)), st.just(False)),
    st.tuples(
        st.sampled_from(["missed", "answered", "link_lost", "probes"]), gateways, st.none(), st.just(False)
    ),
    st.tuples(st.just("wait"), st.integers(1, 4000), st.none(), st.just(False)),
)


@given(st.lists(events, max_size=40))
def test_who_is_able_is_never_out_of_date(
    happens: list[tuple[str, str | int, GatewayState | Status | None, bool]],
) -> None:
    field = Field()
    for kind, subject, how, retained in happens:
        if isinstance(subject, int):
            field.clock.now_ms += subject
        elif isinstance(how, Status):
            field.table.refused(subject, BUNDLE, how, 150.0)
        elif how is not None:
            field.advert(subject, state=how, retained=retained)
        elif kind == "missed":
            field.table.missed(subject)
        elif kind == "answered":
            field.table.answered(subject, 5.0)
        elif kind == "link_lost":
            field.table.link_lost()
        else:
            field.table.probes_due()
        # A choice is made anew each time.
        assert (field.table.able(BUNDLE, 2).gateways > 0) == (field.choose(boundary=2) is not None)
