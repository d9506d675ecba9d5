"""The shared evaluation protocol keeps what it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeexit.models.protocol import run_until
from edgeexit.models.vit import ViTConfig, vit
from edgeexit.training import evaluation as ev
from edgeexit.training.data import Samples

COSTS = (10, 25, 60, 100)


def recorded(seed: int, samples: int = 400, exits: int = 4, classes: int = 6) -> tuple[ev.Logits, np.ndarray]:
    """Answers that get better with depth, as a trained network's do."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, samples)
    noise = rng.normal(size=(exits, samples, classes)) * rng.gamma(2.0, 1.0, size=(1, samples, 1))
    signal = np.zeros((samples, classes))
    signal[np.arange(samples), targets] = 1.0
    depth = np.arange(1, exits + 1)[:, None, None]
    return (noise + depth * signal).astype(np.float32), targets


@given(q=st.floats(0.01, 5.0), exits=st.integers(1, 12))
def test_target_fractions_sum_to_one(q: float, exits: int) -> None:
    fractions = ev.target_fractions(q, exits)
    assert fractions.sum() == pytest.approx(1.0)
    assert np.allclose(fractions[1:] / fractions[:-1], q)


def test_target_fractions_refuse_zero() -> None:
    with pytest.raises(ValueError, match="over 0"):
        ev.target_fractions(0.0, 3)


@settings(deadline=None)
@given(q=st.floats(0.05, 1.95), seed=st.integers(0, 10_000), levels=st.integers(2, 200))
def test_thresholds_reproduce_the_shares_up_to_ties(q: float, seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.rint(rng.random((4, 300)) * levels) / levels
    fractions = ev.target_fractions(q, 4)
    thresholds = ev.solve_thresholds(confidence, fractions)
    left = np.ones(300, dtype=bool)
    for k in range(3):
        taken = left & (confidence[k] >= thresholds[k])
        share = int(np.floor(300 * fractions[k]))
        ties = int((left & (confidence[k] == thresholds[k])).sum())
        if share == 0:
            assert not taken.any()
        elif share <= left.sum():
            assert share <= taken.sum() < share + max(ties, 1)
        else:
            assert thresholds[k] == np.inf
        left &= ~taken
    assert thresholds[-1] == -np.inf


def test_every_sample_is_answered_exactly_once() -> None:
    logits, _ = recorded(0)
    taken = ev.exits_taken(ev.confidences(logits), (0.9, 0.9, float("inf"), float("-inf")))
    assert set(np.unique(taken)) <= {0, 1, 3}
    assert len(taken) == logits.shape[1]


def test_the_curve_runs_from_the_first_exit_to_the_last() -> None:
    held_out, _ = recorded(1)
    test, targets = recorded(2)
    accuracies = ev.exit_accuracies(test, targets)
    curve = ev.budgeted_curve(held_out, test, targets, COSTS)
    assert len(curve) == 39
    assert curve[0].accuracy == pytest.approx(accuracies[0], abs=0.03)
    assert curve[0].mean_macs == pytest.approx(COSTS[0], rel=0.15)
    assert curve[-1].accuracy == pytest.approx(accuracies[-1], abs=0.05)
    means = [point.mean_macs for point in curve]
    assert means[0] < means[len(means) // 2] < means[-1] <= COSTS[-1]


def test_an_early_exit_beats_stopping_everything_at_the_same_cost() -> None:
    held_out, _ = recorded(1, samples=4000)
    test, targets = recorded(2, samples=4000)
    accuracies = ev.exit_accuracies(test, targets)
    for point in ev.budgeted_curve(held_out, test, targets, COSTS):
        fixed = ev.anytime_accuracy(point.mean_macs, COSTS, accuracies)
        assert fixed is not None
        assert point.accuracy > fixed - 0.01


def test_anytime_is_a_staircase() -> None:
    accuracies = (0.5, 0.6, 0.7, 0.8)
    assert ev.anytime_accuracy(9, COSTS, accuracies) is None
    assert ev.anytime_accuracy(10, COSTS, accuracies) == 0.5
    assert ev.anytime_accuracy(59.9, COSTS, accuracies) == 0.6
    assert ev.anytime_accuracy(1e9, COSTS, accuracies) == 0.8


def test_confidence_is_the_largest_probability() -> None:
    logits = np.array([[[0.0, 0.0], [1000.0, 0.0], [-2.0, 0.5]]], dtype=np.float32)
    expected = torch.from_numpy(logits).double().softmax(-1).max(-1).values.numpy()
    assert np.allclose(ev.confidences(logits), expected)


def test_cached_answers_equal_a_real_short_circuit_run() -> None:
    config = ViTConfig(
        img_size=8, patch_size=4, in_chans=1, num_classes=4, embed_dim=16, depth=3, num_heads=2,
        exits=(1, 2, 3), mean=(0.5,), std=(0.1,),
    )  # fmt: skip
    network = vit(config, seed=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4.0)  # Fresh weights answer everything alike; larger ones tell samples apart.
    images = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    samples = Samples(images=images, targets=np.zeros(40, dtype=np.int64), name="noise")
    logits = ev.exit_logits(network, samples, batch_size=16)
    thresholds = ev.solve_thresholds(ev.confidences(logits), ev.target_fractions(1.0, 3))
    taken = ev.exits_taken(ev.confidences(logits), thresholds)
    assert len(set(taken.tolist())) == 3
    for i in range(40):
        # A batch of one sums in another order; a threshold lies exactly on one sample's confidence.
        nudged = [threshold - 1e-6 for threshold in thresholds]
        output, stopped = run_until(network, torch.from_numpy(images[i : i + 1]), nudged)
        assert stopped == taken[i]
        assert np.allclose(output.numpy()[0], logits[taken[i], i], atol=1e-4)
