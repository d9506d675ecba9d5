"""Step 8: real inputs with the float network's answers, for boards to verify their runtime with.

Requires: the float network's run on real inputs, the same that parity was shown on.
Ensures: one safetensors file; every variant strays from it by no more than its recorded parity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeexit.bundle.golden import encode_golden
from edgeexit.convert.parity import Reference
from edgeexit.convert.plan import evenly
from edgeexit.convert.slicing import SlicedStage


def golden_vectors(
    stages: Sequence[SlicedStage], samples: Sequence[Sequence[Reference]], count: int
) -> bytes:
    """Golden vectors of at most `count` samples, spread evenly over those given.

    Raises: MissingExtra.
    """
    chosen = [samples[i] for i in evenly(len(samples), count)]
    inputs = {
        spec.name: np.stack([sample[0].inputs[spec.name].astype(np.float32) for sample in chosen])
        for spec in stages[0].inputs
    }  # n of 1 C H W -> n 1 C H W
    outputs = [
        np.concatenate([sample[k].outputs[stage.output.name].astype(np.float32) for sample in chosen])
        for k, stage in enumerate(stages)
    ]  # n of 1 C -> n C
    return encode_golden(inputs, outputs)
