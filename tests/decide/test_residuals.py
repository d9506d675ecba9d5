from __future__ import annotations

import random
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.residuals import PRIOR_ERRORS, WINDOW, ChangePoint, ResidualWindow


def test_the_prior_gives_way_to_what_was_measured() -> None:
    window = ResidualWindow()
    assert window.ordered() == PRIOR_ERRORS
    for _ in range(2 * WINDOW):
        window.add(0.1)
    assert set(window.ordered()) == {0.1}
    assert len(window.ordered()) == WINDOW


@given(st.lists(st.floats(-5.0, 5.0) | st.just(inf), max_size=200))
def test_the_window_stays_sorted_and_bounded(errors: list[float]) -> None:
    window = ResidualWindow()
    for error in errors:
        window.add(error)
        ordered = window.ordered()
        assert list(ordered) == sorted(ordered)
        assert 1 <= len(ordered) <= WINDOW
        assert window.weight > len(ordered)


def test_change_points_are_found_soon_and_seldom_imagined() -> None:
    draw = random.Random(2)
    change = ChangePoint()
    false_alarms = sum(change.watch(draw.gauss(0.0, 0.3)) for _ in range(2000))
    assert false_alarms < 30
    found = [change.watch(draw.gauss(1.2, 0.3)) for _ in range(6)]
    assert any(found)
