"""The number of training threads follows what is fastest now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.training.thread_choice import ThreadChoice

StepTime = Callable[[float, int], float]


def idle(now_s: float, threads: int) -> float:
    return 0.4 / threads


def loaded(now_s: float, threads: int) -> float:
    return 0.45 if threads == 1 else 2.0


def train_for(seconds: float, most: int, step_time: StepTime) -> dict[int, float]:
    """Seconds spent with each number of threads."""
    choice, now_s, spent = ThreadChoice(most), 0.0, dict.fromkeys(range(1, most + 1), 0.0)
    while now_s < seconds:
        threads = choice.threads
        step_s = step_time(now_s, threads)
        spent[threads] += step_s
        now_s += step_s
        choice.took(step_s)
    return spent


def test_an_idle_machine_trains_with_all_threads() -> None:
    spent = train_for(270.0, 4, idle)
    assert spent[4] > 0.9 * 270.0
    assert spent[2] == spent[3] == 0.0


def test_beside_other_load_one_thread_trains() -> None:
    assert train_for(270.0, 2, loaded)[1] > 0.85 * 270.0


@pytest.mark.parametrize("turn_s", [60.0, 135.0])
def test_it_follows_load_that_comes_or_goes(turn_s: float) -> None:
    comes = train_for(270.0, 2, lambda now_s, n: idle(now_s, n) if now_s < turn_s else loaded(now_s, n))
    assert comes[1] > 0.6 * (270.0 - turn_s)
    goes = train_for(400.0, 2, lambda now_s, n: loaded(now_s, n) if now_s < turn_s else idle(now_s, n))
    assert goes[2] > 0.5 * (400.0 - turn_s)


@given(
    most=st.integers(1, 16),
    times=st.lists(st.floats(1e-3, 60.0), min_size=1, max_size=300),
)
def test_whatever_steps_take_the_number_is_one_or_the_most(most: int, times: list[float]) -> None:
    choice = ThreadChoice(most)
    for step_s in times:
        assert choice.threads in (1, most)
        choice.took(step_s)
