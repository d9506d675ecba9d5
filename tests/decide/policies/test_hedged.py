"""The recommended policy: it sends what pays, computes on, and knows when not to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.bundle.manifest import Calibration
from edgeexit.decide.calibration import QualityTable
from edgeexit.decide.decision import Action, Evidence, InFlight, OffloadOption, Situation
from edgeexit.decide.policies.hedged import HedgedGain

K = 4
PRIOR = (0.58, 0.70, 0.77, 0.80)
IMAGE = OffloadOption(0, "u8", 15_000)
IMAGE_SMALL = OffloadOption(0, "jpeg", 5_000, quality_cost=0.05)
TENSORS = OffloadOption(1, "int8", 4_000)


@dataclass(frozen=True, slots=True)
class Compute:
    """Stages that take exactly `stage_ms`."""

    stage_ms: float = 50.0

    def probability_within(self, first: int, stop: int, limit_ms: float) -> float:
        return 1.0 if self.stage_ms * (stop - first) <= limit_ms else 0.0

    def median_ms(self, first: int, stop: int) -> float:
        return self.stage_ms * (stop - first)


@dataclass(frozen=True, slots=True)
class Link:
    """Chances by payload size, the same whatever the limit, save under `floor_ms`."""

    chances: dict[int, float] = field(default_factory=lambda: {15_000: 0.9, 5_000: 0.95, 4_000: 0.99})
    up: bool = True
    reply: float = 0.9
    floor_ms: float = 10.0
    crowd_price: float = 0.0

    def probability_within(self, option: OffloadOption, limit_ms: float) -> float:
        return self.chances[option.payload_bytes] if limit_ms > self.floor_ms else 0.0

    def reply_probability(self, in_flight: InFlight, limit_ms: float) -> float:
        return self.reply if limit_ms > 0.0 else 0.0

    def median_ms(self, option: OffloadOption) -> float | None:
        return 50.0

    def request_price(self, option: OffloadOption) -> float:
        return self.crowd_price


def table(exit_: int) -> QualityTable:
    """Doubtful below 0.5, sure above: half of the frames each."""
    deeper = range(exit_, K)
    return QualityTable(
        exit_,
        Calibration(
            variant="f32",
            temperature=1.0,
            upper_scores=(0.5, 1.0),
            quality=tuple(
                (PRIOR[exit_] - 0.2 + 0.1 * (j - exit_), min(1.0, PRIOR[exit_] + 0.2)) for j in deeper
            ),
            accuracy=PRIOR[exit_],
            samples=1000,
        ),
    )


TABLES = tuple(table(exit_) for exit_ in range(K))


def start(**changes: object) -> Situation:
    situation = Situation(
        remaining_ms=120.0,
        elapsed_ms=0.0,
        stages_done=0,
        stage_count=K,
        evidence=None,
        prior_quality=PRIOR,
        compute=Compute(),
        link=Link(),
        options=(IMAGE,),
        in_flight=None,
    )
    return replace(situation, **changes)  # type: ignore[arg-type]


def after_first(quality: tuple[float, ...], **changes: object) -> Situation:
    return start(
        stages_done=1,
        evidence=Evidence(0, 0.6, 2, quality),
        remaining_ms=70.0,
        elapsed_ms=50.0,
        **changes,
    )


def test_it_sends_at_once_and_then_computes_on() -> None:
    policy = HedgedGain(tables=TABLES)
    first = policy.decide(start())
    assert (first.action, first.option) == (Action.OFFLOAD, IMAGE)
    second = policy.decide(start(in_flight=InFlight(IMAGE, 0.0), offloads=1))
    assert second.action is Action.CONTINUE


def test_without_a_link_it_is_the_anytime_floor() -> None:
    policy = HedgedGain(tables=TABLES)
    assert policy.decide(start(link=None, options=())).action is Action.CONTINUE
    assert policy.decide(start(link=Link(up=False))).action is Action.CONTINUE
    assert policy.decide(after_first(PRIOR, link=None, options=())).action is Action.CONTINUE
    spent = replace(after_first(PRIOR, link=None, options=()), remaining_ms=40.0)
    assert policy.decide(spent).action is Action.EXIT


def test_nothing_is_sent_when_it_cannot_come_in_time() -> None:
    policy = HedgedGain(tables=TABLES)
    assert policy.decide(start(link=Link({15_000: 0.0}))).action is Action.CONTINUE


def test_nothing_is_sent_when_the_device_gets_there_itself() -> None:
    policy = HedgedGain(tables=TABLES)
    assert policy.decide(start(remaining_ms=1000.0)).action is Action.CONTINUE


def test_a_price_of_bytes_stops_sends_that_are_not_worth_it() -> None:
    policy = HedgedGain(tables=TABLES)
    assert policy.decide(start(byte_price=1.0)).action is Action.CONTINUE
    assert policy.decide(start(byte_price=1e-9, link=Link(floor_ms=100.0))).action is Action.OFFLOAD


def test_where_others_wait_at_the_gateway_a_small_gain_is_left_to_them() -> None:
    policy = HedgedGain(tables=TABLES)
    tight = start(remaining_ms=60.0)
    assert policy.decide(replace(tight, link=Link(crowd_price=0.02))).action is Action.OFFLOAD
    assert policy.decide(replace(tight, link=Link(crowd_price=0.5))).action is Action.CONTINUE


def test_codecs_compete_by_quality_and_by_time() -> None:
    policy = HedgedGain(tables=TABLES)
    both = start(options=(IMAGE, IMAGE_SMALL))
    assert policy.decide(both).option == IMAGE
    slow = replace(both, link=Link({15_000: 0.3, 5_000: 0.95}))
    assert policy.decide(slow).option == IMAGE_SMALL


def test_smaller_payload_one_stage_away_is_waited_for() -> None:
    policy = HedgedGain(tables=TABLES)
    narrow = start(link=Link({15_000: 0.1, 4_000: 0.95}), later_options=(TENSORS,))
    assert policy.decide(narrow).action is Action.CONTINUE
    then = after_first((0.6, 0.7, 0.77, 0.8), link=narrow.link, options=(IMAGE, TENSORS))
    assert policy.decide(then).option == TENSORS


def test_dear_bytes_wait_for_the_score_when_there_is_time() -> None:
    """Half of the frames will be sure after exit 0: with a price it pays to look first."""
    policy = HedgedGain(tables=TABLES)
    dear = start(byte_price=0.05 / 15_000)
    assert policy.decide(dear).action is Action.CONTINUE
    sure = after_first((0.78, 0.78, 0.78, 0.78), byte_price=dear.byte_price)
    assert policy.decide(sure).action is not Action.OFFLOAD
    doubtful = after_first((0.38, 0.48, 0.58, 0.68), byte_price=dear.byte_price)
    assert policy.decide(doubtful).action is Action.OFFLOAD
    # Too late to look first: after the stage nothing could come in time any more.
    assert policy.decide(replace(dear, remaining_ms=58.0)).action is Action.OFFLOAD


def test_sure_answers_leave_early() -> None:
    policy = HedgedGain(tables=TABLES)
    decision = policy.decide(after_first((0.995, 0.995, 0.995, 0.995)))
    assert (decision.action, decision.reason) == (Action.EXIT, "confident")
    worse = policy.decide(after_first((0.9, 0.85, 0.85, 0.85)))
    assert (worse.action, worse.reason) == (Action.EXIT, "confident")


def test_deeper_exits_that_seem_worse_within_the_error_of_a_bin_are_still_reached() -> None:
    seemingly = HedgedGain().decide(after_first((0.56, 0.54, 0.54, 0.55)))
    assert (seemingly.action, seemingly.reason) == (Action.CONTINUE, "deeper")


def test_doubtful_answers_compute_on_unless_energy_has_a_price() -> None:
    """An expected improvement of nothing is only an estimate while the answer itself is doubtful."""
    policy = HedgedGain(tables=TABLES)
    doubtful = after_first((0.8, 0.8, 0.8, 0.8), link=None, options=())
    assert policy.decide(doubtful).action is Action.CONTINUE
    assert (
        policy.decide(replace(doubtful, energy_price=1e-6, stage_energy_mj=(100.0,) * K)).action
        is Action.EXIT
    )


def test_certified_thresholds_are_obeyed() -> None:
    evidence_quality = (0.6, 0.7, 0.8, 0.9)
    certified = HedgedGain(tables=TABLES, thresholds=(0.55, 0.55, 0.55, 0.0))
    strict = HedgedGain(tables=TABLES, thresholds=(0.65, 0.65, 0.65, 0.0))
    assert certified.decide(after_first(evidence_quality)).reason == "certified"
    assert strict.decide(after_first(evidence_quality)).action is not Action.EXIT


def test_it_waits_for_a_reply_unless_waiting_costs_more_than_it_promises() -> None:
    policy = HedgedGain(tables=TABLES)
    late = replace(
        after_first((0.5, 0.6, 0.7, 0.8), in_flight=InFlight(IMAGE, 60.0), offloads=1), remaining_ms=30.0
    )
    waiting = policy.decide(late)
    assert waiting.action is Action.WAIT
    assert waiting.wait_ms == pytest.approx(30.0)
    unlikely = replace(late, link=Link(reply=0.0))
    assert policy.decide(unlikely).action is Action.WAIT
    hopeless = policy.decide(replace(unlikely, time_price=0.001))
    assert (hopeless.action, hopeless.reason) == (Action.EXIT, "reply-hopeless")
    assert policy.decide(replace(late, time_price=0.001)).action is Action.WAIT


def test_dear_energy_stops_the_hedge_while_a_reply_is_all_but_certain() -> None:
    policy = HedgedGain(tables=TABLES)
    situation = after_first(
        (0.5, 0.6, 0.7, 0.8),
        in_flight=InFlight(IMAGE, 10.0),
        offloads=1,
        energy_price=0.05 / 100.0,
        stage_energy_mj=(100.0,) * K,
    )
    assert policy.decide(replace(situation, link=Link(reply=0.98))).action is Action.WAIT
    assert policy.decide(replace(situation, link=Link(reply=0.1))).action is Action.CONTINUE


def test_energy_of_sending_counts() -> None:
    policy = HedgedGain(tables=TABLES)
    hungry = replace(IMAGE, energy_mj=1000.0)
    assert policy.decide(start(options=(hungry,), energy_price=1e-3)).action is Action.CONTINUE


def test_encoding_that_takes_the_time_of_the_stages_is_charged() -> None:
    """The last local stage just fits; a second of encoding for a faint hope would cost it."""
    policy = HedgedGain(tables=TABLES)
    slow = replace(IMAGE, encode_ms=30.0)
    situation = start(options=(slow,), remaining_ms=100.0, link=Link({15_000: 0.05}))
    assert policy.decide(situation).action is Action.CONTINUE
    assert policy.decide(replace(situation, options=(IMAGE,))).action is Action.OFFLOAD


def test_encoding_costs_nothing_where_the_reply_is_all_but_certain() -> None:
    """The stages that encoding delays are needed only where no reply comes."""
    policy = HedgedGain(tables=TABLES)
    slow = replace(IMAGE, encode_ms=30.0)
    situation = start(options=(slow,), remaining_ms=60.0, link=Link({15_000: 0.99}))
    assert policy.decide(situation).action is Action.OFFLOAD
    assert policy.decide(replace(situation, link=Link({15_000: 0.6}))).action is Action.CONTINUE


@given(
    chance=st.floats(0.0, 1.0),
    encode_ms=st.floats(0.0, 60.0),
    remaining_ms=st.floats(15.0, 220.0),
)
def test_a_send_never_promises_less_than_computing_alone(
    chance: float, encode_ms: float, remaining_ms: float
) -> None:
    policy = HedgedGain(tables=TABLES)
    option = replace(IMAGE, encode_ms=encode_ms)
    situation = start(options=(option,), remaining_ms=remaining_ms, link=Link({15_000: chance}))
    if policy.decide(situation).action is Action.OFFLOAD:
        alone = reached(remaining_ms)
        assert chance * PRIOR[-1] + (1.0 - chance) * reached(remaining_ms - encode_ms) > alone


def reached(limit_ms: float) -> float:
    """Quality of the deepest exit within a limit on a board of 50 ms a stage."""
    stages = min(K, int(limit_ms // 50.0))
    return PRIOR[stages - 1] if stages > 0 else 0.0


def test_a_faint_hope_does_not_delay_the_first_answer() -> None:
    """With nothing in hand and no time to lose, only a likely reply is worth encoding for."""
    policy = HedgedGain(tables=TABLES)
    slow = replace(IMAGE, encode_ms=1.0)
    late = start(options=(slow,), remaining_ms=45.0, link=Link({15_000: 0.1}))
    assert policy.decide(late).action is Action.CONTINUE
    assert policy.decide(replace(late, link=Link({15_000: 0.9}))).action is Action.OFFLOAD
    assert policy.decide(replace(late, options=(IMAGE,))).action is Action.OFFLOAD
    assert policy.decide(replace(late, remaining_ms=60.0)).action is Action.OFFLOAD


def test_a_send_is_not_put_off_for_a_promise_that_is_no_better() -> None:
    """What was sent now has come by the time that a budget is cut."""
    policy = HedgedGain(tables=TABLES)
    soon = start(link=Link({15_000: 0.95, 4_000: 0.97}), later_options=(TENSORS,))
    assert policy.decide(soon).option == IMAGE


def test_after_the_last_exit_there_is_nothing_to_wait_for() -> None:
    evidence = Evidence(K - 1, 0.5, 1, PRIOR)
    done = start(stages_done=K, evidence=evidence, options=(), in_flight=InFlight(IMAGE, 5.0), offloads=1)
    assert HedgedGain(tables=TABLES).decide(done).action is Action.EXIT


def test_dear_time_answers_sooner_and_sends_what_saves_time() -> None:
    policy = HedgedGain(tables=TABLES)
    local = after_first((0.6, 0.65, 0.7, 0.75), link=None, options=())
    assert policy.decide(local).action is Action.CONTINUE
    assert policy.decide(replace(local, time_price=0.01)).action is Action.EXIT
    # Time for all stages: a reply would be no better, only sooner.
    roomy = start(remaining_ms=1000.0)
    assert policy.decide(roomy).action is Action.CONTINUE
    assert policy.decide(replace(roomy, time_price=0.01)).action is Action.OFFLOAD


def test_dear_time_waits_only_for_replies_that_come_soon() -> None:
    policy = HedgedGain(tables=TABLES)
    waiting = replace(
        after_first((0.5, 0.5, 0.5, 0.9), in_flight=InFlight(IMAGE, 45.0), offloads=1), time_price=0.01
    )
    assert policy.decide(waiting).action is Action.WAIT
    assert policy.decide(replace(waiting, time_price=0.1)).action is Action.EXIT
