"""An evaluation says what each exit is worth, and what it promises of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeexit.errors import DataError
from edgeexit.models.vit import ViTConfig, vit
from edgeexit.training.data import Samples
from edgeexit.training.evaluation import budgeted_curve
from edgeexit.training.plots import plot_curves
from edgeexit.training.report import (
    encode_evaluation,
    evaluate,
    evaluate_outputs,
    render_evaluation,
    spread_calibration_error,
)

COSTS = (10, 30, 90)


def recorded(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 12, 600)
    logits = rng.normal(size=(3, 600, 12))
    logits[:, np.arange(600), targets] += np.array([[1.0], [2.0], [4.0]])
    return logits.astype(np.float32), targets


def test_classes_agree_with_the_curve_of_the_protocol() -> None:
    held_out, _ = recorded(0)
    test, targets = recorded(1)
    evaluation = evaluate_outputs(held_out, test, targets, COSTS)
    assert [p.quality for p in evaluation.budgeted] == [
        p.accuracy for p in budgeted_curve(held_out, test, targets, COSTS)
    ]
    accuracies = [each.accuracy for each in evaluation.exits]
    assert accuracies == sorted(accuracies, key=lambda a: a or 0.0)
    assert all((e.top5_accuracy or 0.0) >= (e.accuracy or 1.0) for e in evaluation.exits)
    assert "exit 2" in render_evaluation(evaluation)


def test_values_leave_by_their_spread() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=400).astype(np.float32)
    spread = rng.uniform(0.1, 2.0, (3, 400))
    spread[2] = 0.05
    outputs = np.stack((targets + spread * rng.laplace(size=(3, 400)), spread), axis=2).astype(np.float32)
    evaluation = evaluate_outputs(outputs, outputs, targets, COSTS)
    assert evaluation.task == "regression"
    errors = [each.mean_absolute_error or 0.0 for each in evaluation.exits]
    assert errors[2] < errors[0]
    assert evaluation.exits[0].accuracy is None
    assert evaluation.budgeted[5].quality < errors[0]
    assert evaluation.exits[0].calibration_error < 0.3


def test_calibration_error_of_spreads_is_their_distance_from_the_errors() -> None:
    assert spread_calibration_error(np.ones(30), np.full(30, 1.5)) == pytest.approx(0.5)


def test_a_network_becomes_json_and_a_picture(tmp_path: Path) -> None:
    config = ViTConfig(
        img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2,
        exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    samples = Samples(rng.random((60, 1, 8, 8), np.float32), rng.integers(0, 3, 60).astype(np.int64), "noise")
    evaluation = evaluate(vit(config, seed=0), samples, samples)
    document = json.loads(encode_evaluation(evaluation))
    assert len(document["budgeted"]) == 39
    assert document["exits"][0]["macs"] < document["exits"][1]["macs"]
    plot_curves({"noise": evaluation}, tmp_path / "plots" / "curve.svg")
    assert (tmp_path / "plots" / "curve.svg").stat().st_size > 1000
    with pytest.raises(DataError, match="no samples"):
        evaluate(vit(config, seed=0), samples.take(slice(0, 0)), samples)
