"""From an exit's output to Evidence, with the calibrations of the variants that run here."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Manifest
from edgeexit.decide.calibration import quality_tables
from edgeexit.decide.decision import Evidence
from edgeexit.decide.evidence import judge, root_scale, score_logits, score_spread

# Scores are 32-bit sums: a bound on one is trusted to this much.
SCORE_ERROR = 1e-4


class Judge:
    """Scores outputs and looks up what they promise.

    Safe to call from several threads: all that changes is the limits it keeps, as a whole.
    Shapes: variants (K,), the variant of each stage that runs here.
    """

    __slots__ = ("_limits", "_prior_quality", "_root_scales", "_scales", "_tables", "_task")

    def __init__(self, manifest: Manifest, variants: Sequence[str]) -> None:
        pairs = zip(manifest.exits, variants, strict=True)
        calibrations = [exit_.calibration(variant) for exit_, variant in pairs]
        self._task = manifest.task
        self._scales = tuple(calibration.temperature for calibration in calibrations)
        temperatures = self._scales if self._task == "classification" else ()
        self._root_scales = tuple(root_scale(temperature) for temperature in temperatures)
        self._prior_quality = tuple(calibration.accuracy for calibration in calibrations)
        self._tables = quality_tables(manifest.exits, variants)
        self._limits: tuple[tuple[float, ...], tuple[float | None, ...]] = ((), ())

    @property
    def prior_quality(self) -> tuple[float, ...]:
        """Mean quality of each exit before anything is known of a frame."""
        return self._prior_quality

    def surely_below(self, exit_index: int, output: NDArray[np.float32], scores: tuple[float, ...]) -> bool:
        """Whether this output scores less than its exit's of `scores`, and not 0, as far as a glance tells.

        The largest logit and the largest of others bound the largest probability from above, of the other
        half at first; False where that is not enough, and for outputs that say nothing. Shapes: output (C,),
        scores (K,), the same object each time or they are prepared anew.
        """
        known, limits = self._limits
        if known is not scores:
            limits = tuple(self._limit(exit_, score) for exit_, score in enumerate(scores))
            self._limits = scores, limits
        nearest = limits[exit_index]
        if nearest is None or output.size < 2:
            evidence = self.judge(exit_index, output)
            return 0.0 < evidence.score < scores[exit_index]
        # After a stage every call of numpy costs 10 µs: two of the same one, and more where it matters.
        place = output.argmax()  # the first NaN where there is one
        largest: float = output.item(place)
        middle = output.size >> 1
        others = output[:middle] if place >= middle else output[middle:]
        other: float = others.item(others.argmax())
        if -inf < other and largest - other < nearest:
            return True
        for others in (output[:place], output[place + 1 :]):
            if others.size:
                other = others.item(others.argmax())
                if -inf < other and largest - other < nearest:
                    return True
        return False

    def _limit(self, exit_index: int, score: float) -> float | None:
        """Two logits nearer than this surely score less; None where scores tell and logits do not."""
        bound = min(score, 1.0) - SCORE_ERROR
        if not bound > 0.0 or self._task != "classification":
            return None
        return self._scales[exit_index] * log(bound / (1.0 - bound))

    def judge(self, exit_index: int, output: NDArray[np.float32]) -> Evidence:
        """What this output of this exit says. Shapes: output (C,)."""
        scale = self._scales[exit_index]
        label: int | None
        if self._task == "classification":
            label, score = score_logits(output, scale, self._root_scales[exit_index])
        else:
            label, score = None, score_spread(float(output[1]), scale)
        return judge(exit_index, label, score, self._tables)
