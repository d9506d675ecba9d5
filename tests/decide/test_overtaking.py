"""Payloads that are held up, and those that are sent past them."""

from __future__ import annotations

import pytest

from edgeexit.decide.decision import OffloadOption
from edgeexit.decide.link import HELD_UP, LinkEstimator

IMAGE = OffloadOption(0, "u8", 15_000)
RTT_MS = 30.0
USUAL_MS = 45.0
LIMIT_MS = 100.0
FIRST, SECOND = 1001, 1002


def known_link() -> tuple[LinkEstimator, float]:
    """A link that has always taken as long, and the time."""
    link = LinkEstimator()
    link.connection(True, 0.0)
    link.pinged(64, RTT_MS, 1.0)
    for token in range(40):
        sent_ms = 100.0 + 300.0 * token
        link.sent(token, IMAGE, sent_ms)
        link.replied(token, USUAL_MS, 0.0, 1.0, 200, sent_ms + USUAL_MS)
    return link, 100.0 + 300.0 * 40


def chance(link: LinkEstimator, now_ms: float) -> float:
    return link.forecast(now_ms).probability_within(IMAGE, LIMIT_MS)


def test_one_payload_may_be_sent_past_one_that_is_held_up() -> None:
    link, now_ms = known_link()
    link.sent(FIRST, IMAGE, now_ms)
    overdue_ms = now_ms + 1.5 * HELD_UP * USUAL_MS
    hope = chance(link, overdue_ms)
    assert 0.0 < hope < 0.1, "a hope, not an expectation"
    link.sent(SECOND, IMAGE, overdue_ms)
    assert chance(link, overdue_ms + 1.5 * HELD_UP * USUAL_MS) == 0.0, "two would queue where the link stands"


def test_nothing_is_hoped_for_while_a_payload_is_a_little_late() -> None:
    link, now_ms = known_link()
    link.sent(FIRST, IMAGE, now_ms)
    assert link.forecast(now_ms + 1.2 * USUAL_MS).probability_within(IMAGE, 0.9 * USUAL_MS) == 0.0


def test_a_reply_that_overtakes_another_shows_that_the_link_is_as_usual() -> None:
    link, now_ms = known_link()
    usual = chance(link, now_ms)
    goodput_bps = link.goodput_bps
    link.sent(FIRST, IMAGE, now_ms)
    link.sent(SECOND, IMAGE, now_ms + 200.0)
    link.replied(SECOND, USUAL_MS, 0.0, 1.0, 200, now_ms + 200.0 + USUAL_MS)
    after_ms = now_ms + 200.0 + USUAL_MS
    assert chance(link, after_ms) == pytest.approx(usual, rel=0.05)
    assert goodput_bps is not None
    before_bps = link.goodput_bps
    link.replied(FIRST, 400.0, 0.0, 1.0, 200, now_ms + 400.0)
    assert link.goodput_bps == before_bps, "it tells how late replies can be, not how quick the link is"


def test_a_payload_that_is_not_overdue_is_not_given_up_for_one_that_is_quicker() -> None:
    link, now_ms = known_link()
    link.sent(FIRST, IMAGE, now_ms)
    link.sent(SECOND, IMAGE, now_ms + 1.0)
    link.replied(SECOND, 20.0, 0.0, 1.0, 200, now_ms + 21.0)
    quick_bps = link.goodput_bps
    link.replied(FIRST, 44.0, 0.0, 1.0, 200, now_ms + 44.0)
    assert link.goodput_bps != quick_bps, "it still tells of the link"
