"""Stages of one interpreter, from one file that is made here of theirs.

Interpreters of their own take memory of their own: four of them cost a ViT-Tiny two parts in a hundred.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from edgeexit.bundle.manifest import Variant
from edgeexit.bundle.merge import merged
from edgeexit.bundle.store import Bundle
from edgeexit.bundle.tflite import check_model
from edgeexit.errors import BundleError, RunnerError
from edgeexit.runner.graphs import GraphStage, inner_of
from edgeexit.runner.litert import bind_tensors, given_by
from edgeexit.runner.protocol import LoadedStage, StageOutput, Tensors
from edgeexit.runner.report import write_pieces
from edgeexit.runner.runtime import Runtime

_log = logging.getLogger(__name__)

# Beside the report of the selection that chose the stages.
TOGETHER_FILE = "stages.tflite"
# Files are compared in parts of this size.
_CHUNK_BYTES = 2**20


def can_be_together(stages: Sequence[LoadedStage]) -> bool:
    """Whether there is anything to put together: several stages, all of them TFLite files."""
    return len(stages) > 1 and all(each.variant.format == "tflite" for each in stages)


def load_together(
    bundle: Bundle, variants: Sequence[Variant], path: Path, *, runtime: Runtime, threads: int
) -> list[LoadedStage]:
    """Stages 0, 1, … in these variants, of one file at `path`; it is written unless it is there already.

    Every byte of that file is held against the bundle's, whatever wrote it.
    Raises: RunnerError where they cannot be together.
    """
    try:
        files = [bundle.blob_path(variant.blob) for variant in variants]
        _keep(path, files)
        interpreter = runtime.make(path, threads)
        inner = inner_of(interpreter, len(variants))
        loaded: list[LoadedStage] = []
        for stage, variant in enumerate(variants):
            signature = interpreter.get_signature_runner(_key(stage))
            inputs, outputs = signature.get_input_details(), signature.get_output_details()
            wanted = bundle.manifest.boundaries[stage].tensors
            taken = bind_tensors(inputs, wanted, stage=stage, file=path.name)
            given = bind_tensors(outputs, given_by(bundle.manifest, stage), stage=stage, file=path.name)
            answer = bundle.manifest.exits[stage].output.name
            loaded.append(
                GraphStage(
                    stage=stage,
                    variant=variant,
                    inner=inner,
                    graph=stage,
                    inputs=tuple(taken.items()),
                    boundary=[(tensor, index) for tensor, index in given.items() if tensor != answer],
                    exit_index=given[answer],
                )
            )
    except (BundleError, OSError, ValueError, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        raise RunnerError("stages cannot be put together", why=str(error)) from error
    return loaded


def put_together(
    bundle: Bundle,
    loaded: list[LoadedStage],
    path: Path,
    *,
    inputs: Sequence[Tensors],
    runtime: Runtime,
    threads: int,
) -> bool:
    """Replace stages with interpreters of their own by the same ones of one file, where nothing changes.

    What they answer to `inputs` must be the same, bit for bit. Where it is not, or they cannot be together,
    `loaded` is left empty, because memory for both may be short, and the log says why.
    Shapes: loaded, stages 0, 1, …
    """
    variants = [each.variant for each in loaded]
    expected = [_walk(loaded, each) for each in inputs]
    loaded.clear()
    try:
        together = load_together(bundle, variants, path, runtime=runtime, threads=threads)
        if all(_same(_walk(together, each), wanted) for each, wanted in zip(inputs, expected, strict=True)):
            loaded.extend(together)
            return True
        why: str | None = "together they answer otherwise"
    except RunnerError as error:
        why = error.why
    _log.info("every stage gets an interpreter of its own: %s", why)
    with suppress(OSError):
        path.unlink(missing_ok=True)
    return False


def _key(stage: int) -> str:
    return f"stage_{stage}"


def _walk(stages: Iterable[LoadedStage], tensors: Tensors) -> list[StageOutput]:
    found = []
    for stage in stages:
        found.append(stage.run(tensors))
        tensors = found[-1].boundary
    return found


def _same(ours: Sequence[StageOutput], theirs: Sequence[StageOutput]) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    outputs = all(np.array_equal(one.output, other.output) for one, other in pairs)
    names = ((one, other, name) for one, other in pairs for name in other.boundary)
    return outputs and all(
        np.array_equal(one.boundary[name], other.boundary[name]) for one, other, name in names
    )


def _keep(path: Path, files: Sequence[Path]) -> None:
    """See that `path` holds the stages of these files. Raises: OSError, BundleError, RunnerError."""
    with ExitStack() as opened:
        data = [opened.enter_context(memoryview(_mapped(file, opened))) for file in files]
        one = merged(data, [_key(stage) for stage in range(len(data))])
        if _holds(path, one.pieces(data), one.size_bytes):
            return
        if not write_pieces(path, one.pieces(data)):
            raise RunnerError("stages cannot be put together", why=f"{path} cannot be written")
    check_model(path, file=path.name)


def _mapped(file: Path, opened: ExitStack) -> mmap.mmap:
    with file.open("rb") as stream:
        return opened.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _holds(path: Path, pieces: Iterable[memoryview], size_bytes: int) -> bool:
    """Whether a file holds just these bytes. Raises: OSError when it is there and cannot be read."""
    try:
        with path.open("rb") as stream:
            if stream.seek(0, 2) != size_bytes:
                return False
            stream.seek(0)
            for piece in pieces:
                for start in range(0, len(piece), _CHUNK_BYTES):
                    wanted = bytes(piece[start : start + _CHUNK_BYTES])
                    if stream.read(len(wanted)) != wanted:
                        return False
    except FileNotFoundError:
        return False
    return True
