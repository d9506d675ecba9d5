"""Step 5: answer whole sets with the converted stages, every exit of them.

Requires: stage files of one variant.
Ensures: outputs of every exit for every image, as a board would give them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Task
from edgeexit.convert.lowered import LoweredStage, open_chain
from edgeexit.convert.parallel import for_each
from edgeexit.convert.plan import SAME_VALUE, network_input
from edgeexit.convert.slicing import Arrays, SlicedStage
from edgeexit.decide.calibration import regression_quality
from edgeexit.errors import ParityError
from edgeexit.models.protocol import IMAGE


def answer_set(
    stages: Sequence[SlicedStage],
    models: Sequence[Path],
    images: NDArray[np.generic],
    *,
    workers: int | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Outputs of every exit for every image; `tell` learns how many are done.

    Shapes: images (N, C, H, W); result (K, N, C) with C the exit's output width.
    Raises: LoweringError, MissingExtra, RunnerError.
    """
    outputs = np.empty((len(stages), len(images), stages[0].output.shape[1]), dtype=np.float32)

    def answer(chain: tuple[LoweredStage, ...], i: int) -> None:
        state: Arrays = {IMAGE: network_input(images[i])[None]}  # C H W -> 1 C H W
        for k, lowered in enumerate(chain):
            state = lowered.run(state)
            outputs[k, i] = state.pop(lowered.output_name)[0]

    for_each(len(images), lambda: open_chain(models, stages), answer, workers=workers, tell=tell)
    return outputs


def answers_of(outputs: NDArray[np.float32], task: Task) -> NDArray[np.float64]:
    """The answer in each output: the class, or the value.

    Shapes: outputs (K, N, C), result (K, N).
    """
    if task == "classification":
        classes: NDArray[np.intp] = outputs.argmax(axis=2)  # K N C -> K N
        return classes.astype(np.float64)
    values: NDArray[np.float32] = outputs[:, :, 0]  # K N 2 -> K N
    return values.astype(np.float64)


def quality(
    answers: NDArray[np.float64], targets: NDArray[np.generic], task: Task, error_scale: float
) -> NDArray[np.float64]:
    """Quality of every answer: 1 where the class is right, or 1 - |error| / error_scale.

    Shapes: answers (K, N), targets (N,), result (K, N).
    """
    wanted = targets.astype(np.float64)
    if task == "classification":
        right: NDArray[np.bool_] = answers == wanted
        return right.astype(np.float64)
    return regression_quality(answers - wanted, error_scale)


def agreement(
    answers: NDArray[np.float64],
    reference: NDArray[np.float64],
    *,
    variant: str,
    task: Task,
    error_scale: float,
    least: float,
) -> tuple[float, ...]:
    """Fraction of inputs on which a variant answers as the float one does, at each exit.

    Regression values agree when they lie within a tenth of `error_scale`.
    Shapes: answers and reference (K, N); result (K,).
    Raises: ParityError when a fraction is below `least`; its numbers are fractions of inputs.
    """
    bound = 0.0 if task == "classification" else SAME_VALUE * error_scale
    agreed = (np.abs(answers - reference) <= bound).mean(axis=1)
    for k, fraction in enumerate(agreed):
        if fraction < least:
            raise ParityError(
                stage=k,
                tensor=f"the answer of variant {variant}, as a fraction of inputs,",
                max_abs_diff=1.0 - float(fraction),
                tolerance=1.0 - least,
            )
    return tuple(float(fraction) for fraction in agreed)
