"""From an exit's output to Evidence, with the calibrations of the variants that run here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Manifest
from edgeexit.decide.calibration import quality_tables
from edgeexit.decide.decision import Evidence
from edgeexit.decide.evidence import judge, score_logits, score_spread


class Judge:
    """Scores outputs and looks up what they promise. Safe to call from several threads: it never changes.

    Shapes: variants (K,), the variant of each stage that runs here.
    """

    __slots__ = ("_prior_quality", "_scales", "_tables", "_task")

    def __init__(self, manifest: Manifest, variants: Sequence[str]) -> None:
        pairs = zip(manifest.exits, variants, strict=True)
        calibrations = [exit_.calibration(variant) for exit_, variant in pairs]
        self._task = manifest.task
        self._scales = tuple(calibration.temperature for calibration in calibrations)
        self._prior_quality = tuple(calibration.accuracy for calibration in calibrations)
        self._tables = quality_tables(manifest.exits, variants)

    @property
    def prior_quality(self) -> tuple[float, ...]:
        """Mean quality of each exit before anything is known of a frame."""
        return self._prior_quality

    def judge(self, exit_index: int, output: NDArray[np.float32]) -> Evidence:
        """What this output of this exit says. Shapes: output (C,)."""
        scale = self._scales[exit_index]
        label: int | None
        if self._task == "classification":
            label, score = score_logits(output, scale)
        else:
            label, score = None, score_spread(float(output[1]), scale)
        return judge(exit_index, label, score, self._tables)
