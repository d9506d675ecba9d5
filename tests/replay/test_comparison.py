"""Who was ahead, whether it is chance, and why: on outcomes whose differences are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeexit.replay.comparison import beaten, may_be_ahead, worth
from edgeexit.replay.metrics import block_error, gap_closed_error
from edgeexit.replay.outcome import ON_TIME, Outcome

FRAMES = 500


def outcome(quality: np.ndarray, *, exits: int = 0, remote: bool = False) -> Outcome:
    frames = len(quality)
    zeros = np.zeros(frames)
    none = np.zeros(frames, dtype=np.int64)
    return Outcome(
        policy="any",
        scenario="any",
        seed=1,
        samples=none,
        captured_ms=zeros,
        expiry_ms=zeros,
        emitted_ms=zeros,
        deadline_ms=zeros,
        quality=quality,
        exits=np.full(frames, exits),
        remote=np.full(frames, remote),
        fates=np.full(frames, ON_TIME),
        stages_run=none,
        sends=none,
        uplink_bytes=none,
        downlink_bytes=none,
        by_timer=np.zeros(frames, dtype=np.bool_),
        probe_bytes=0,
        decisions=0,
    )


def answers(share: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(FRAMES) < share).astype(np.float64)


def test_who_is_behind_beats_nobody() -> None:
    own = [outcome(answers(0.8, 1))]
    assert beaten("row", "worse", [outcome(answers(0.5, 2))], own, price=0.0) is None
    assert not may_be_ahead(answers(0.5, 2), answers(0.8, 1))


def test_a_small_lead_is_chance() -> None:
    quality = answers(0.8, 1)
    better = quality.copy()
    better[np.flatnonzero(better == 0.0)[:1]] = 1.0
    found = beaten("row", "lucky", [outcome(better)], [outcome(quality)], price=0.0)
    assert found is not None
    assert found.points == pytest.approx(100.0 / FRAMES)
    assert not found.certain
    assert found.cause.startswith("chance")
    assert may_be_ahead(better, quality)


def test_a_lead_that_is_none_names_the_answers_that_made_it() -> None:
    quality = answers(0.5, 1)
    theirs = outcome(np.ones(FRAMES), exits=3, remote=True)
    late = replace(outcome(quality, exits=1), fates=np.where(np.arange(FRAMES) < 100, ON_TIME + 1, ON_TIME))
    found = beaten("row", "better", [theirs], [late], price=0.0)
    assert found is not None
    assert found.certain
    assert "it answered from the gateway and the policy with exit 1 (80.0 % of frames)" in found.cause
    assert "+20.00 points where it answered from the gateway and the policy not in time" in found.cause


def test_a_rule_chosen_on_the_frames_that_it_leads_on_is_told_so() -> None:
    quality = answers(0.7, 1)
    own = [outcome(quality), outcome(quality)]
    lucky = [outcome(np.ones(FRAMES)), outcome(quality)]
    found = beaten("row", "chosen", lucky, own, price=0.0, chosen_on=1)
    assert found is not None
    assert found.certain
    assert found.cause.startswith("chosen in hindsight")
    steady = beaten("row", "chosen", [outcome(np.ones(FRAMES))] * 2, own, price=0.0, chosen_on=1)
    assert steady is not None
    assert "where it answered" in steady.cause


def test_bytes_and_probes_cost_what_they_cost() -> None:
    sent = replace(outcome(np.ones(FRAMES)), uplink_bytes=np.full(FRAMES, 10), probe_bytes=FRAMES * 5)
    assert worth([sent], 0.01) == pytest.approx(np.full(FRAMES, 1.0 - 0.15))


def test_standard_errors_are_those_of_independent_blocks() -> None:
    values = np.random.default_rng(3).normal(size=40_000)
    assert block_error(values) == pytest.approx(1.0 / 200.0, rel=0.1)
    assert block_error(values[:30]) == float("inf")


def test_the_error_of_a_share_is_that_of_its_repetitions() -> None:
    draw = np.random.default_rng(4)
    shares: list[float] = []
    errors: list[float] = []
    for _ in range(200):
        floor = draw.random(2000)
        oracle = floor + draw.normal(0.1, 0.3, 2000)
        policy = floor + 0.9 * (oracle - floor) + draw.normal(0.0, 0.1, 2000)
        shares.append(float((policy - floor).mean() / (oracle - floor).mean()))
        error = gap_closed_error(policy, floor, oracle)
        assert error is not None
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(shares), rel=0.2)
    assert gap_closed_error(floor, floor, floor) is None
