"""The port behind which stages are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Variant
from edgeexit.nouns import quickly_made

Tensor = NDArray[np.generic]
Tensors = Mapping[str, Tensor]
Clock = Callable[[], float]
"""Monotonic milliseconds."""


@quickly_made
@dataclass(frozen=True, slots=True)
class StageOutput:
    """What stage k gives: the tensors of boundary k+1 (empty after the last stage) and exit k's output.

    Shapes: output (C,) logits, or (2,) value and spread for regression.
    """

    boundary: Tensors
    output: NDArray[np.float32]


class LoadedStage(Protocol):
    """Port: one stage in one variant, loaded by the runtime that it is for."""

    @property
    def stage(self) -> int:
        """Its number."""
        ...

    @property
    def variant(self) -> Variant:
        """Which variant it is."""
        ...

    def run(self, tensors: Tensors) -> StageOutput:
        """Run the stage; what it gives stays as it is, whatever runs next. Raises: RunnerError."""
        ...


class Runner(Protocol):
    """Port: runs the stages of one bundle, one at a time, in the calling thread."""

    @property
    def stage_count(self) -> int:
        """K."""
        ...

    def variant(self, stage: int) -> str:
        """Name of the variant in use for this stage."""
        ...

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        """Run one stage on the tensors of its boundary; they are not changed and not kept.

        Raises: RunnerError.
        """
        ...

    def close(self) -> None:
        """Free the interpreters."""
        ...
