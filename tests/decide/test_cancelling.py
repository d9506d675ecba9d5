from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.cancelling import IDLE_PRICE, LEAST_MS, saved_ms, worth_cancelling
from edgeexit.decide.decision import InFlight, OffloadOption
from edgeexit.decide.link import LinkEstimator

IMAGE = OffloadOption(0, "u8", 15_000)
FLYING = InFlight(IMAGE, waited_ms=20.0)


@dataclass
class Known:
    """A link whose reply comes within a time with a probability that rises evenly up to `latest_ms`."""

    latest_ms: float
    crowd: float = 0.0
    up: bool = True

    def probability_within(self, option: OffloadOption, limit_ms: float) -> float:
        raise AssertionError("nothing is to be sent")

    def reply_probability(self, in_flight: InFlight, limit_ms: float) -> float:
        return min(1.0, limit_ms / self.latest_ms)

    def median_ms(self, option: OffloadOption) -> float | None:
        return None

    def request_price(self, option: OffloadOption) -> float:
        return self.crowd


def worth(
    link: Known, *, compute_ms: float = 10.0, cancel_ms: float = 0.0, cancel_price: float = 0.0
) -> bool:
    return worth_cancelling(
        link,
        FLYING,
        round_trip_ms=20.0,
        compute_ms=compute_ms,
        cancel_ms=cancel_ms,
        cancel_price=cancel_price,
    )


def test_a_reply_on_its_way_back_is_let_come() -> None:
    assert not worth(Known(latest_ms=25.0)), "it is here within a round trip and half the computing"
    assert worth(Known(latest_ms=200.0))
    assert not worth(Known(latest_ms=200.0, up=False))


def test_bytes_must_buy_what_they_save() -> None:
    assert saved_ms(Known(200.0), FLYING, round_trip_ms=20.0, compute_ms=10.0) == pytest.approx(8.75)
    assert worth(Known(200.0), cancel_ms=8.0)
    assert not worth(Known(200.0), cancel_ms=9.0), "the link is busy for longer than the gateway is spared"
    assert not worth(Known(200.0), compute_ms=LEAST_MS), "nor for what takes the gateway no time"
    assert not worth(Known(200.0), cancel_price=IDLE_PRICE), "nobody waits there"
    assert worth(Known(200.0, crowd=0.001), cancel_price=IDLE_PRICE), "somebody does"


@given(
    latest_ms=st.floats(1.0, 1e4),
    compute_ms=st.floats(0.0, 1e3),
    cancel_ms=st.floats(0.0, 1e3),
    cancel_price=st.floats(0.0, 1.0),
    crowd=st.floats(0.0, 0.002),
)
def test_what_is_saved_is_a_share_and_dearer_cancels_are_never_sent_sooner(
    latest_ms: float, compute_ms: float, cancel_ms: float, cancel_price: float, crowd: float
) -> None:
    link = Known(latest_ms, crowd)
    saved = saved_ms(link, FLYING, round_trip_ms=20.0, compute_ms=compute_ms)
    assert 0.0 <= saved <= compute_ms
    if worth(link, compute_ms=compute_ms, cancel_ms=cancel_ms, cancel_price=cancel_price):
        assert worth(link, compute_ms=compute_ms, cancel_ms=0.5 * cancel_ms, cancel_price=cancel_price)
        assert worth(link, compute_ms=compute_ms, cancel_ms=cancel_ms, cancel_price=0.5 * cancel_price)
        assert worth(
            Known(latest_ms, 2.0 * crowd),
            compute_ms=compute_ms,
            cancel_ms=cancel_ms,
            cancel_price=cancel_price,
        )


def learnt(*, queue_ms: float = 0.0, compute_ms: float = 12.0) -> LinkEstimator:
    """A link of 20 ms and 1,000 bytes a ms, with twenty replies behind it, at 6 s."""
    link = LinkEstimator()
    link.connection(True, 0.0)
    link.pinged(64, 20.0, 20.0)
    for token in range(20):
        now_ms = 300.0 * token
        link.sent(token, IMAGE, now_ms)
        elapsed_ms = 35.0 + queue_ms + compute_ms
        link.replied(token, elapsed_ms, queue_ms, compute_ms, 200, now_ms + elapsed_ms)
    return link


def ask(link: LinkEstimator, waited_ms: float, *, byte_price: float = 0.0) -> bool:
    link.sent(99, IMAGE, 6000.0)
    now_ms = 6000.0 + waited_ms
    return link.worth_cancelling(InFlight(IMAGE, waited_ms), now_ms, cancel_bytes=80, byte_price=byte_price)


def test_an_estimator_weighs_with_what_it_has_learnt() -> None:
    assert ask(learnt(), 5.0), "the gateway has it after 25 ms and works for 12"
    assert not ask(learnt(), 42.0), "the reply is due in 5 ms"
    assert ask(learnt(), 300.0), "it is overdue: whoever has it may be spared it"
    assert not ask(learnt(), 5.0, byte_price=1e-5)
    assert ask(learnt(queue_ms=40.0), 5.0, byte_price=1e-5)
    assert not ask(LinkEstimator(), 5.0), "nothing is known of any gateway"
