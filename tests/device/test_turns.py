"""A busy network thread must leave the deadline's timer its turn within the guard."""

from __future__ import annotations

import sys

import pytest

from edgeexit.decide.guard import LEAST_MS
from edgeexit.device.turns import TURN_MS, quick_turns


def test_turns_are_short_while_a_device_works_and_as_they_were_afterwards() -> None:
    before_s = sys.getswitchinterval()
    with quick_turns():
        assert sys.getswitchinterval() == pytest.approx(TURN_MS / 1000.0)
    assert sys.getswitchinterval() == pytest.approx(before_s)


def test_two_turns_of_others_fit_into_the_guard_before_a_deadline() -> None:
    assert 2.0 * TURN_MS < LEAST_MS
