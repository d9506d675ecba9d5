"""What the codecs of packers weigh, and what they cost at the last exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import BoundaryCodec, CodecName, Manifest
from edgeexit.convert.accuracy import answers_of, quality
from edgeexit.convert.codecs import offer
from edgeexit.convert.packer_files import PackerFiles, answer_of
from edgeexit.convert.plan import LabelledSet, network_input
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.transport.codecs import (
    decode_tensors,
    encode_tensors,
    sent_bytes,
    size_varies,
    uncompressed,
)


def measure_packers(
    runner: Runner,
    boundary: int,
    packers: Sequence[PackerFiles],
    labelled: LabelledSet,
    chosen: Sequence[int],
    manifest: Manifest,
    *,
    error_scale: float,
    tell: Callable[[int], None],
) -> dict[CodecName, BoundaryCodec]:
    """Bytes and cost of every codec of every packer; no entry for compression that saves too little.

    `chosen` are the images sent; `tell` learns how many of them are done. Raises: RunnerError, WireError.
    """
    width = manifest.exits[-1].output.shape[-1]
    codecs = [codec for one in packers for codec in one.packer.codecs]
    outputs = {uncompressed(codec): np.empty((1, len(chosen), width), np.float32) for codec in codecs}
    plain = np.empty((1, len(chosen), width), np.float32)
    sizes = {codec: np.empty(len(chosen)) for codec in codecs}
    name = manifest.boundaries[0].tensors[0].name
    for row, index in enumerate(chosen):
        state: Tensors = {name: network_input(labelled.images[index])[None]}  # C H W -> 1 C H W
        for stage in range(boundary):
            state = runner.run(stage, state).boundary
        plain[0, row] = answer_of(runner, boundary, state)
        for one in packers:
            packed = one.pack.run(state)
            for codec in one.packer.codecs:
                sent = encode_tensors(packed, codec)
                sizes[codec][row] = sent_bytes(sent)
                if codec == uncompressed(codec):
                    came = one.unpack.run(decode_tensors(sent, one.packer.tensors))
                    outputs[codec][0, row] = answer_of(runner, boundary, came)
        tell(row + 1)
    targets = labelled.targets[list(chosen)]

    def mean(answers: NDArray[np.float32]) -> float:
        found = quality(answers_of(answers, manifest.task), targets, manifest.task, error_scale)
        return float(found.mean())

    best = mean(plain)
    return {
        measured.codec: measured
        for one in packers
        for codec in one.packer.codecs
        for measured in offer(
            one.packer.tensors,
            codec,
            best - mean(outputs[uncompressed(codec)]),
            sizes[codec] if size_varies(codec) else None,
        )
    }
