from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.bundle.manifest import Calibration
from edgeexit.decide.calibration import QualityTable
from edgeexit.decide.evidence import PLAIN_CLASSES, best, judge, score_logits, score_spread

PRIOR = (0.5, 0.6, 0.7)


def tables() -> list[QualityTable]:
    return [
        QualityTable(
            exit_,
            Calibration(
                variant="f32",
                temperature=1.0,
                upper_scores=(0.5, 1.0),
                quality=tuple((0.3 + 0.1 * deeper, 0.8 + 0.05 * deeper) for deeper in range(3 - exit_)),
                accuracy=0.6,
                samples=100,
            ),
            before=PRIOR[:exit_],
        )
        for exit_ in range(3)
    ]


@given(
    st.lists(st.floats(-50.0, 50.0, width=32), min_size=1, max_size=3 * PLAIN_CLASSES),
    st.floats(0.1, 10.0),
)
def test_score_is_the_largest_softmax_probability(logits: list[float], temperature: float) -> None:
    label, score = score_logits(np.asarray(logits, dtype=np.float32), temperature)
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    probability = np.exp(scaled - scaled.max())
    probability /= probability.sum()
    assert score == pytest.approx(float(probability.max()), rel=1e-4)
    assert logits[label] == max(logits)
    assert score_logits(logits, temperature)[1] == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("classes", [3, PLAIN_CLASSES + 1])
def test_logits_that_are_no_numbers_are_worth_nothing(bad: float, classes: int) -> None:
    logits = np.zeros(classes, dtype=np.float32)
    logits[:] = bad
    assert score_logits(logits, 1.0)[1] == 0.0


def test_spread_lowers_a_regression_score() -> None:
    assert score_spread(0.0, 2.0) == 1.0
    assert score_spread(2.0, 2.0) == pytest.approx(exp(-1.0))
    assert score_spread(float("inf"), 2.0) == 0.0
    assert score_spread(float("nan"), 2.0) == 0.0
    assert score_spread(-1.0, 2.0) == 1.0


def test_evidence_tells_itself_and_deeper_exits_from_the_score() -> None:
    evidence = judge(1, 4, 0.9, tables())
    assert evidence.expected_quality == pytest.approx((0.5, 0.8, 0.85))
    assert evidence.quality == 0.8
    assert evidence.label == 4


def test_the_deeper_answer_is_taken_even_with_a_poorer_score() -> None:
    shallow = judge(0, 1, 0.9, tables())
    deep = judge(1, 2, 0.1, tables())
    assert shallow.quality > deep.quality
    assert best(shallow, deep) is deep
    assert best(None, shallow) is shallow


def test_an_exit_that_said_nothing_does_not_replace_an_answer() -> None:
    held = judge(0, 1, 0.9, tables())
    broken = judge(1, 0, 0.0, tables())
    kept = best(held, broken)
    assert (kept.exit, kept.label, kept.quality) == (0, 1, held.quality)
    assert kept.expected_quality[2] == broken.expected_quality[2]
