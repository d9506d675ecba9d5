from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.bundle.manifest import Calibration
from edgeexit.decide.calibration import QualityTable
from edgeexit.decide.outlook import ScoreOutlook


def outlook(own: list[float]) -> ScoreOutlook:
    rising = sorted(own)
    edges = tuple((index + 1) / len(own) for index in range(len(own)))
    calibration = Calibration(
        variant="f32",
        temperature=1.0,
        upper_scores=edges,
        quality=(tuple(rising), tuple(min(1.0, value + 0.1) for value in rising)),
        accuracy=0.5,
        samples=100,
    )
    return ScoreOutlook(QualityTable(0, calibration))


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20), st.none() | st.floats(-0.5, 1.5))
def test_outcomes_are_a_distribution(own: list[float], expected: float | None) -> None:
    groups = outlook(own).groups(expected)
    assert sum(mass for mass, _ in groups) == pytest.approx(1.0)
    assert all(mass >= 0.0 for mass, _ in groups)


def test_any_frame_is_the_mean_over_all_bins() -> None:
    groups = outlook([0.2, 0.4, 0.6, 0.8]).groups(None)
    assert sum(mass * row[0] for mass, row in groups) == pytest.approx(0.5)


@pytest.mark.parametrize("expected", [0.3, 0.5, 0.7, 0.85])
def test_outcomes_agree_with_what_is_expected(expected: float) -> None:
    groups = outlook([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]).groups(expected)
    assert sum(mass * row[0] for mass, row in groups) == pytest.approx(expected, abs=0.03)
