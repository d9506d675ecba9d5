"""Step 7: what each way of sending a boundary weighs, and what it costs.

Requires: f32 stage files, and a subset of the calibration set.
Ensures: the bytes of a whole request frame, and the quality lost at the last exit by each codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import BoundaryCodec, CodecName, Task
from edgeexit.convert.accuracy import answers_of, quality
from edgeexit.convert.lowered import LoweredStage, open_chain
from edgeexit.convert.parallel import for_each
from edgeexit.convert.plan import network_input
from edgeexit.convert.slicing import Arrays, SlicedStage
from edgeexit.models.protocol import IMAGE
from edgeexit.transport.codecs import decode_tensors, encode_tensors, payload_bytes

# 8-bit images are what cameras give: u8 loses nothing there. Deeper tensors have no such grid.
INPUT_CODECS: tuple[CodecName, ...] = ("raw", "u8")
HIDDEN_CODECS: tuple[CodecName, ...] = ("raw", "f16", "int8")


def codecs_of(boundary: int) -> tuple[CodecName, ...]:
    """The codecs offered for a boundary."""
    return INPUT_CODECS if boundary == 0 else HIDDEN_CODECS


def measure_codecs(
    stages: Sequence[SlicedStage],
    models: Sequence[Path],
    images: NDArray[np.generic],
    targets: NDArray[np.generic],
    *,
    task: Task,
    error_scale: float,
    workers: int | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[tuple[BoundaryCodec, ...], ...]:
    """Every codec of every boundary; `tell` learns how many images are done.

    A codec is measured where it matters: the gateway decodes the boundary and runs all stages behind
    it. A gain by chance counts as no cost.
    Shapes: images (n, C, H, W), targets (n,); result (K,) tuples.
    Raises: LoweringError, MissingExtra, RunnerError.
    """
    width = stages[-1].output.shape[1]
    offered = [(b, codec) for b in range(len(stages)) for codec in codecs_of(b)]
    # Raw loses nothing, so raw's answers are those of the untouched chain.
    answers = {key: np.empty((1, len(images), width), dtype=np.float32) for key in offered}

    def measure(chain: tuple[LoweredStage, ...], i: int) -> None:
        states: list[Arrays] = [{IMAGE: network_input(images[i])[None]}]  # C H W -> 1 C H W
        for lowered in chain:
            outputs = lowered.run(states[-1])
            answer = outputs.pop(lowered.output_name)[0]
            states.append(outputs)
        for b, codec in offered:
            if codec == "raw":
                answers[b, codec][0, i] = answer
            else:
                received = decode_tensors(encode_tensors(states[b], codec), stages[b].inputs)
                answers[b, codec][0, i] = _answer(chain[b:], received)

    for_each(len(images), lambda: open_chain(models, stages), measure, workers=workers, tell=tell)
    means = {
        key: float(quality(answers_of(outputs, task), targets, task, error_scale).mean())
        for key, outputs in answers.items()
    }
    best = means[0, "raw"]
    return tuple(
        tuple(
            BoundaryCodec(
                codec=codec,
                payload_bytes=payload_bytes(stages[b].inputs, codec),
                quality_cost=max(0.0, best - means[b, codec]),
            )
            for codec in codecs_of(b)
        )
        for b in range(len(stages))
    )


def _answer(chain: Sequence[LoweredStage], tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    """The last exit's output for the tensors of the chain's first boundary. Shapes: result (C,)."""
    state: Arrays = dict(tensors)
    for lowered in chain:
        state = lowered.run(state)
        output = state.pop(lowered.output_name)
    row: NDArray[np.float32] = output[0].astype(np.float32)  # 1 C -> C
    return row
