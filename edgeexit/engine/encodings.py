"""What each way of sending a boundary costs in time on this machine, measured when a bundle is loaded.

A bundle states bytes and quality, which are the same everywhere; times belong to a board, and policies weigh
them against the bytes that they save.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from edgeexit.bundle.store import Bundle
from edgeexit.errors import RunnerError, WireError
from edgeexit.runner.packing import Packers
from edgeexit.runner.protocol import Clock, Runner, Tensors
from edgeexit.transport.codecs import abilities_for, codec_name, decode_tensors, encode_tensors
from edgeexit.transport.storage import abilities

# The median of so many runs, after one that is not counted; JPEG, the slowest, takes a board some 10 ms.
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class CodecTime:
    """One codec of one boundary, timed here. Units: medians; decode_ms None where nothing here undoes it."""

    boundary: int
    codec: str
    encode_ms: float
    decode_ms: float | None


def measure_encodings(
    bundle: Bundle,
    runner: Runner,
    *,
    packing: Packers,
    unpacking: Packers | None = None,
    clock: Clock,
) -> tuple[CodecTime, ...]:
    """Every codec that can be made here, on the boundaries of a golden vector.

    With `unpacking` the other side's work is timed too. Raises: RunnerError where a stage fails.
    """
    here = abilities()
    times: list[CodecTime] = []
    tensors: Tensors = bundle.golden().sample(0)
    for index, boundary in enumerate(bundle.manifest.boundaries):
        for offered in boundary.codecs:
            packer = boundary.packer(offered.codec)
            able = packer is None or (index, offered.codec) in packing.codecs
            if (
                not able
                or not {each for each in abilities_for(offered.codec, index) if "@" not in each} <= here
            ):
                continue
            try:
                times.append(_timed(bundle, index, offered.codec, tensors, packing, unpacking, clock))
            except (RunnerError, WireError):
                continue  # what cannot be made of this boundary is not timed, and learnt if it ever is
        if index < bundle.manifest.stage_count - 1:
            tensors = runner.run(index, tensors).boundary
    return tuple(times)


def _timed(
    bundle: Bundle,
    index: int,
    codec: str,
    tensors: Tensors,
    packing: Packers,
    unpacking: Packers | None,
    clock: Clock,
) -> CodecTime:
    boundary, name = bundle.manifest.boundaries[index], codec_name(codec)
    packer = boundary.packer(codec)

    def encode() -> None:
        encode_tensors(tensors if packer is None else packing.run(index, packer, tensors), name)

    encode_ms = _median_ms(encode, clock)
    sent = encode_tensors(tensors if packer is None else packing.run(index, packer, tensors), name)
    if packer is not None and (unpacking is None or (index, codec) not in unpacking.codecs):
        return CodecTime(index, codec, encode_ms, None)

    def decode() -> None:
        came = decode_tensors(sent, boundary.tensors if packer is None else packer.tensors)
        if packer is not None and unpacking is not None:
            unpacking.run(index, packer, came)

    return CodecTime(index, codec, encode_ms, _median_ms(decode, clock))


def _median_ms(run: Callable[[], None], clock: Clock) -> float:
    run()
    times_ms = []
    for _ in range(ROUNDS):
        began_ms = clock()
        run()
        times_ms.append(clock() - began_ms)
    return median(times_ms)
