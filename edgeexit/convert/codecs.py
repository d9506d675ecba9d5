"""Step 7: what each way of sending a boundary weighs, and what it costs.

Requires: f32 stage files, and a subset of the calibration set.
Ensures: the bytes of a whole request frame, as a distribution where they vary, and the quality lost at the
last exit by each codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import BoundaryCodec, CodecName, Task, TensorSpec
from edgeexit.convert.accuracy import answers_of, quality
from edgeexit.convert.lowered import LoweredStage, open_chain
from edgeexit.convert.parallel import for_each
from edgeexit.convert.plan import PLAIN_CODECS, network_input
from edgeexit.convert.slicing import Arrays, SlicedStage
from edgeexit.models.protocol import IMAGE
from edgeexit.transport.codecs import (
    abilities_for,
    decode_tensors,
    encode_tensors,
    is_packed,
    packer_name,
    payload_bytes,
    sent_bytes,
    size_varies,
    uncompressed,
)
from edgeexit.transport.storage import require_abilities

# 8-bit images are what cameras give: u8 loses nothing there. Deeper tensors have no such grid.
INPUT_CODECS: tuple[CodecName, ...] = (
    *("raw", "u8", "u8-zstd", "u8-lz4"),
    *("jpeg95", "jpeg85", "jpeg70", "jpeg50", "jpeg30"),
)
HIDDEN_CODECS: tuple[CodecName, ...] = (
    *("raw", "f16", "int8", "int8-token", "int8-channel", "int8-zstd", "int8-lz4"),
    *("int4", "int4-token", "int4-channel", "int4-zstd", "int4-token-zstd", "int4-lz4"),
)

# Compression that saves less is not offered: it costs time at both ends, and every option costs the policy
# time at every decision. A device then weighs bytes against the encoding time that it measures.
COMPRESSED_BELOW = 0.9


def codec_choices() -> tuple[CodecName, ...]:
    """Every codec that a conversion can be asked to measure, but those that packers make."""
    return tuple(dict.fromkeys((*INPUT_CODECS, *HIDDEN_CODECS)))


def codec_words() -> dict[str, tuple[CodecName, ...]]:
    """Every word that asks for codecs, with those that it stands for.

    Besides the codecs themselves these are the names of packers: `pool4` for `pool4-int8` and `pool4-int4`.
    """
    words: dict[str, tuple[CodecName, ...]] = {codec: (codec,) for codec in codec_choices()}
    packed = [codec for codec in get_args(CodecName) if is_packed(codec)]
    for codec in packed:
        name = packer_name(codec)
        words[name] = tuple(
            each for each in packed if packer_name(each) == name and each == uncompressed(each)
        )
    return words | {codec: (codec,) for codec in packed}


def codecs_of(boundary: int, wanted: Sequence[CodecName]) -> tuple[CodecName, ...]:
    """Those of the wanted codecs that suit a boundary."""
    suited = INPUT_CODECS if boundary == 0 else HIDDEN_CODECS
    return tuple(codec for codec in suited if codec in wanted)


def measure_codecs(
    stages: Sequence[SlicedStage],
    models: Sequence[Path],
    images: NDArray[np.generic],
    targets: NDArray[np.generic],
    *,
    task: Task,
    error_scale: float,
    wanted: Sequence[CodecName] = PLAIN_CODECS,
    workers: int | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[tuple[BoundaryCodec, ...], ...]:
    """Every wanted codec of every boundary; `tell` learns how many images are done.

    A codec is measured where it matters: the gateway decodes the boundary and runs all stages behind
    it. A gain by chance counts as no cost.
    Shapes: images (n, C, H, W), targets (n,); result (K,) tuples.
    Raises: LoweringError, MissingExtra, RunnerError.
    """
    width = stages[-1].output.shape[1]
    offered = [(b, codec) for b in range(len(stages)) for codec in codecs_of(b, wanted)]
    require_abilities(
        frozenset().union(*(abilities_for(codec, b) for b, codec in offered)), needed_for="measuring codecs"
    )
    # Raw loses nothing, so raw's answers are those of the untouched chain.
    lossy = dict.fromkeys((b, uncompressed(codec)) for b, codec in offered)
    answers = {key: np.empty((1, len(images), width), dtype=np.float32) for key in lossy}
    sizes = {(b, codec): np.empty(len(images)) for b, codec in offered if size_varies(codec)}

    def measure(chain: tuple[LoweredStage, ...], i: int) -> None:
        states: list[Arrays] = [{IMAGE: network_input(images[i])[None]}]  # C H W -> 1 C H W
        for lowered in chain:
            outputs = lowered.run(states[-1])
            answer = outputs.pop(lowered.output_name)[0]
            states.append(outputs)
        for b, codec in lossy:
            if codec == "raw":
                answers[b, codec][0, i] = answer
            else:
                received = decode_tensors(encode_tensors(states[b], codec), stages[b].inputs)
                answers[b, codec][0, i] = _answer(chain[b:], received)
        for b, codec in sizes:
            sizes[b, codec][i] = sent_bytes(encode_tensors(states[b], codec))

    for_each(len(images), lambda: open_chain(models, stages), measure, workers=workers, tell=tell)
    means = {
        key: float(quality(answers_of(outputs, task), targets, task, error_scale).mean())
        for key, outputs in answers.items()
    }
    best = means[0, "raw"]
    return tuple(
        tuple(
            measured
            for codec in codecs_of(b, wanted)
            for measured in offer(
                stages[b].inputs, codec, best - means[b, uncompressed(codec)], sizes.get((b, codec))
            )
        )
        for b in range(len(stages))
    )


def offer(
    specs: Sequence[TensorSpec], codec: CodecName, cost: float, sizes: NDArray[np.float64] | None
) -> tuple[BoundaryCodec, ...]:
    """One codec as the manifest has it; none where compression is not worth its time.

    `specs` are what travels, `sizes` its bytes for each image, None where all are alike. A gain by chance
    counts as no cost. Shapes: sizes (n,).
    """
    cost = max(0.0, cost)
    if sizes is None:
        size_bytes = payload_bytes(specs, codec)
        return (BoundaryCodec(codec=codec, payload_bytes=size_bytes, quality_cost=cost),)
    mean_bytes, p95_bytes = ceil(sizes.mean()), ceil(np.quantile(sizes, 0.95))
    plain = uncompressed(codec)
    if plain != codec and mean_bytes > COMPRESSED_BELOW * payload_bytes(specs, plain):
        return ()
    return (BoundaryCodec(codec=codec, payload_bytes=mean_bytes, quality_cost=cost, p95_bytes=p95_bytes),)


def _answer(chain: Sequence[LoweredStage], tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    """The last exit's output for the tensors of the chain's first boundary. Shapes: result (C,)."""
    state: Arrays = dict(tensors)
    for lowered in chain:
        state = lowered.run(state)
        output = state.pop(lowered.output_name)
    row: NDArray[np.float32] = output[0].astype(np.float32)  # 1 C -> C
    return row
