"""Step 3: hold lowered stages against the network.

Requires: stage files, and what the float network computes on real inputs.
Ensures: the largest difference of every stage is known, and that of a float variant is within bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeexit.convert.lowered import open_chain
from edgeexit.convert.slicing import SlicedStage
from edgeexit.convert.threads import one_torch_thread
from edgeexit.errors import ParityError
from edgeexit.models.protocol import IMAGE

Arrays = Mapping[str, NDArray[np.generic]]

# An output of zeros has no size to be relative to.
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Reference:
    """What the float network does at one stage on one real input: its tensors, by name, in and out."""

    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True, slots=True)
class StageParity:
    """How far one lowered stage is from the network on real inputs, at worst.

    Units: exit_max_abs, of the exit's output alone, absolute, by which boards judge their runtimes;
    exit_max_rel, the same relative to the largest absolute value of that output; tensor_max_abs, the tensors
    of the next boundary included; same_answers, fraction of inputs on which the largest output is the same
    one.
    """

    exit_max_abs: float
    tensor_max_abs: float
    exit_max_rel: float
    same_answers: float


def references(
    stages: Sequence[SlicedStage], images: NDArray[np.float32]
) -> tuple[tuple[Reference, ...], ...]:
    """The float network run stage after stage, in one thread, everything kept.

    Shapes: images (n, 1, C, H, W); result n samples of K stages.
    """
    with one_torch_thread():
        return tuple(_reference(stages, image) for image in images)


def _reference(stages: Sequence[SlicedStage], image: NDArray[np.float32]) -> tuple[Reference, ...]:
    state: Arrays = {IMAGE: image}
    kept: list[Reference] = []
    for stage in stages:
        outputs = stage.run(state)
        kept.append(Reference(inputs=state, outputs=outputs))
        state = {spec.name: outputs[spec.name] for spec in stage.following}
    return tuple(kept)


def check_parity(
    stages: Sequence[SlicedStage],
    models: Sequence[Path],
    samples: Sequence[Sequence[Reference]],
    *,
    tolerance: float | None,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[StageParity, ...]:
    """Largest absolute differences of every stage to the network.

    Each stage is run on the network's own tensors, all outputs compared; and in the chain of lowered
    stages, its exit compared. `tolerance` is relative to the largest absolute value of a tensor where
    that is over 1; None bounds nothing but asks for finite numbers.
    Shapes: result (K,).
    Raises: ParityError naming the first stage and tensor that strays; LoweringError, MissingExtra.
    """
    chain = open_chain(models, stages)
    parities: list[StageParity] = []
    states = [sample[0].inputs for sample in samples]
    for k, (stage, lowered) in enumerate(zip(stages, chain, strict=True)):
        exit_name = stage.output.name
        relative, same = 0.0, 0
        worst = dict.fromkeys((exit_name, *(spec.name for spec in stage.following)), 0.0)
        for i, sample in enumerate(samples):
            expected = sample[k].outputs
            alone = lowered.run(sample[k].inputs)
            for name in worst:
                worst[name] = max(worst[name], _difference(k, name, alone[name], expected[name], tolerance))
            chained = lowered.run(states[i])
            difference = _difference(k, exit_name, chained[exit_name], expected[exit_name], tolerance)
            worst[exit_name] = max(worst[exit_name], difference)
            wanted = expected[exit_name]
            far = max(_difference(k, exit_name, alone[exit_name], wanted, None), difference)
            relative = max(relative, far / max(float(np.abs(wanted).max()), _SMALLEST))
            same += int(chained[exit_name].argmax() == wanted.argmax())
            states[i] = {spec.name: chained[spec.name] for spec in stage.following}
        parities.append(
            StageParity(
                exit_max_abs=worst[exit_name],
                tensor_max_abs=max(worst.values()),
                exit_max_rel=relative,
                same_answers=same / len(samples),
            )
        )
        tell(k + 1)
    return tuple(parities)


def _difference(
    stage: int,
    tensor: str,
    got: NDArray[np.generic],
    expected: NDArray[np.generic],
    tolerance: float | None,
) -> float:
    wanted = expected.astype(np.float64)
    difference = np.abs(got.astype(np.float64) - wanted)
    largest = float(difference.max()) if np.isfinite(difference).all() else float("inf")
    scale = max(1.0, float(np.abs(wanted).max()))
    bound = float("inf") if tolerance is None else tolerance * scale
    if not largest <= bound or largest == float("inf"):
        raise ParityError(stage=stage, tensor=tensor, max_abs_diff=largest, tolerance=bound)
    return largest
