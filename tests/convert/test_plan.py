from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeexit.convert.plan import ConversionPlan, check_set, evenly, network_input
from edgeexit.errors import ConfigError, DataError

PLAN = ConversionPlan(
    name="a", version="1.0.0", network="n", dataset="d", licence="MIT", labels=("cat", "dog")
)


@dataclass(frozen=True)
class Given:
    images: NDArray[np.generic]
    targets: NDArray[np.generic]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"variants": ("int8",)}, "variants"),
        ({"variants": ()}, "variants"),
        ({"variants": ("f32", "f32")}, "variants"),
        ({"labels": ("only",)}, "labels"),
        ({"golden_samples": 7}, "golden_samples"),
        ({"name": "a name"}, "name"),
        ({"version": "1"}, "version"),
        ({"licence": ""}, "licence"),
        ({"dataset": "two\nlines"}, "dataset"),
        ({"labels": ("cat", "")}, "labels"),
        ({"risk_epsilons": (0.0,)}, "risk_epsilons"),
        ({"risk_delta": 1.0}, "risk_delta"),
        ({"inconsistency_epsilons": (1.0,)}, "inconsistency_epsilons"),
        ({"inconsistency_tolerance": 0.5}, "inconsistency_tolerance"),
        ({"task": "regression", "error_scale": 1.0}, "labels"),
        ({"task": "regression", "labels": ()}, "error_scale"),
        ({"task": "regression", "labels": (), "error_scale": 0.0}, "error_scale"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_names_the_key(change: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(PLAN, **change)  # type: ignore[arg-type]
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("images", "targets", "why"),
    [
        (np.zeros((3, 8, 8), np.uint8), np.zeros(3, np.int64), "shape"),
        (np.zeros((3, 1, 8, 8), np.uint8), np.zeros(2, np.int64), "targets"),
        (np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, np.int64), "at least 1"),
        (np.zeros((1, 1, 8, 8), np.int64), np.zeros(1, np.int64), "int64"),
        (np.zeros((1, 1, 8, 8), np.uint8), np.array([2]), "labels"),
        (np.zeros((1, 1, 8, 8), np.uint8), np.array([-1]), "labels"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(
    images: NDArray[np.generic], targets: NDArray[np.generic], why: str
) -> None:
    with pytest.raises(DataError, match=why):
        check_set(Given(images, targets), what="calibration", plan=PLAN)


def test_eight_bit_images_become_fractions_and_floats_stay() -> None:
    assert network_input(np.array([0, 255], np.uint8)).tolist() == [0.0, 1.0]
    assert network_input(np.array([0.0, 0.5], np.float64)).tolist() == [0.0, 0.5]


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_samples_are_spread_over_the_whole_set(count: int, wanted: int) -> None:
    chosen = evenly(count, wanted)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, wanted)
    assert wanted == 1 or chosen[-1] == count - 1
