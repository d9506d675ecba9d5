"""Recording a bundle: every exit and every way of offloading, once, on real samples."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Manifest, TensorSpec
from edgeexit.bundle.store import Bundle
from edgeexit.decide.evidence import score_logits, score_spread
from edgeexit.errors import ConfigError, DataError
from edgeexit.replay.recording import RecordedOption, Recording, RecordingNote
from edgeexit.runner.packing import open_packing, open_unpacking
from edgeexit.runner.preprocess import input_tensors, read_image
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.transport.codecs import codec_name, decode_tensors, encode_tensors

# Images that a folder may hold beside other files.
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
# Names and numbers of a million images take some 40 MB.
TRUTH_CAP_BYTES = 64 * 2**20

Truth = dict[str, float]
"""Class number or value, by the name of the source."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One sample. Shapes: image (H, W) or (H, W, 3), 8 bit. `truth`: class number or value."""

    source: str
    image: NDArray[np.uint8]
    truth: float


@dataclass(frozen=True, slots=True)
class _Sample:
    source: str
    truth: float
    outputs: list[NDArray[np.float32]]
    remote: list[NDArray[np.float32]]


def record(
    bundle: Bundle,
    images: Iterable[LabelledImage],
    runner: Runner,
    *,
    data: str,
    clock: Callable[[], float],
    codecs: Sequence[str] | None = None,
    error_scale: float | None = None,
    keep_outputs: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """Run all exits on every image, and what a gateway would answer for every payload.

    `data` says what the images are; they must not be those the bundle was calibrated on. `codecs`
    limits the payloads recorded. `error_scale`, for regression only, is the error that makes an
    answer worth nothing. `progress` is called with the number of samples done.
    Units: clock, monotonic ms. Raises: DataError without a sample; ConfigError; RunnerError.
    """
    manifest = bundle.manifest
    if manifest.task == "regression" and error_scale is None:
        raise ConfigError("regression cannot be recorded", key="error_scale", why="no error scale is given")
    session = _Session(bundle, runner, clock, codecs)
    samples: list[_Sample] = []
    for image in images:
        samples.append(session.run(image))
        if progress is not None:
            progress(len(samples))
    if not samples:
        raise DataError("nothing was recorded", file=data, why="there is no sample")
    variants = tuple(runner.variant(stage) for stage in range(manifest.stage_count))
    judged = _Judged(manifest, variants, error_scale)
    outputs = np.stack([np.stack(sample.outputs) for sample in samples])  # (N, K, C)
    truth = np.asarray([sample.truth for sample in samples], dtype=np.float32)
    answers, scores = judged.answers(outputs)
    last = manifest.stage_count - 1
    remote = [[judged.answer(last, output)[0] for output in sample.remote] for sample in samples]
    remote_answers = np.asarray(remote, dtype=np.float32).reshape(len(samples), len(session.options))
    return Recording(
        note=RecordingNote(
            name=f"{manifest.name} {manifest.version}",
            bundle_digest=bundle.digest,
            data=data,
            task=manifest.task,
            machine=f"{platform.system()} {platform.machine()}",
            variants=variants,
            options=session.recorded_options(),
            calibrations=tuple(
                exit_.calibration(variant) for exit_, variant in zip(manifest.exits, variants, strict=True)
            ),
            stage_ms=session.stage_medians_ms(),
        ),
        sources=tuple(sample.source for sample in samples),
        scores=scores,
        answers=answers,
        truth=truth,
        quality=judged.quality(answers, truth[:, None]),
        option_quality=judged.quality(remote_answers, truth[:, None]),
        outputs=outputs if keep_outputs else None,
    )


class _Session:
    """Runs samples and remembers what stages and encodings took."""

    def __init__(
        self, bundle: Bundle, runner: Runner, clock: Callable[[], float], codecs: Sequence[str] | None
    ) -> None:
        self._manifest = manifest = bundle.manifest
        self._packing, self._unpacking = open_packing(bundle, runner), open_unpacking(bundle, runner)
        able = self._packing.codecs & self._unpacking.codecs
        self._runner = runner
        self._clock = clock
        self._input: TensorSpec = manifest.boundaries[0].tensors[0]
        self._stage_ms: list[list[float]] = [[] for _ in range(manifest.stage_count)]
        self.options = [
            (index, codec)
            for index, boundary in enumerate(manifest.boundaries)
            for codec in boundary.codecs
            if codecs is None or codec.codec in codecs
            # What is not right on this machine would be sent by no device like it.
            if boundary.packer(codec.codec) is None or (index, codec.codec) in able
        ]
        self._encode_ms: list[list[float]] = [[] for _ in self.options]

    def run(self, image: LabelledImage) -> _Sample:
        """All exits here, then every payload through its codec to the last exit."""
        tensors: Tensors = input_tensors(image.image, self._manifest.preprocessing, self._input)
        boundaries: list[Tensors] = []
        outputs: list[NDArray[np.float32]] = []
        for stage in range(self._manifest.stage_count):
            boundaries.append(tensors)
            began_ms = self._clock()
            done = self._runner.run(stage, tensors)
            self._stage_ms[stage].append(self._clock() - began_ms)
            outputs.append(np.asarray(done.output, dtype=np.float32).reshape(-1))
            tensors = done.boundary
        remote: list[NDArray[np.float32]] = []
        for column, (boundary, codec) in enumerate(self.options):
            sent = boundaries[boundary]
            described = self._manifest.boundaries[boundary]
            packer = described.packer(codec.codec)
            began_ms = self._clock()
            whole = sent if packer is None else self._packing.run(boundary, packer, sent)
            coded = encode_tensors(whole, codec_name(codec.codec))
            self._encode_ms[column].append(self._clock() - began_ms)
            came = decode_tensors(coded, described.tensors if packer is None else packer.tensors)
            arrived = came if packer is None else self._unpacking.run(boundary, packer, came)
            same = all(np.array_equal(arrived[name], tensor) for name, tensor in sent.items())
            remote.append(outputs[-1] if same else self._finish(boundary, arrived))
        return _Sample(image.source, image.truth, outputs, remote)

    def recorded_options(self) -> tuple[RecordedOption, ...]:
        """The payloads, with their median encoding times."""
        return tuple(
            RecordedOption(
                boundary=boundary,
                codec=codec.codec,
                payload_bytes=codec.payload_bytes,
                quality_cost=codec.quality_cost,
                encode_ms=float(np.median(times)),
            )
            for (boundary, codec), times in zip(self.options, self._encode_ms, strict=True)
        )

    def stage_medians_ms(self) -> tuple[float, ...]:
        """Median time of every stage."""
        return tuple(float(np.median(times)) for times in self._stage_ms)

    def _finish(self, boundary: int, tensors: Tensors) -> NDArray[np.float32]:
        output: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        for stage in range(boundary, self._manifest.stage_count):
            done = self._runner.run(stage, tensors)
            tensors, output = done.boundary, done.output
        return np.asarray(output, dtype=np.float32).reshape(-1)


class _Judged:
    """Answers, scores and worth of outputs, as the device would judge them."""

    def __init__(self, manifest: Manifest, variants: Sequence[str], error_scale: float | None) -> None:
        pairs = zip(manifest.exits, variants, strict=True)
        self._scales = [exit_.calibration(variant).temperature for exit_, variant in pairs]
        self._error_scale = error_scale
        self._classified = manifest.task == "classification"

    def answer(self, exit_index: int, output: NDArray[np.float32]) -> tuple[float, float]:
        """Class number or value, and score. Shapes: output (C,)."""
        if self._classified:
            label, score = score_logits(output, self._scales[exit_index])
            return float(label), score
        return float(output[0]), score_spread(float(output[1]), self._scales[exit_index])

    def answers(self, outputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Shapes: outputs (N, K, C), results (N, K)."""
        pairs = np.asarray(
            [[self.answer(exit_, output) for exit_, output in enumerate(sample)] for sample in outputs],
            dtype=np.float32,
        )  # (N, K, 2)
        return np.ascontiguousarray(pairs[:, :, 0]), np.ascontiguousarray(pairs[:, :, 1])

    def quality(self, answers: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float32]:
        """What answers were worth. Shapes: answers (N, n), truth (N, 1)."""
        if self._error_scale is None:
            return np.equal(answers, truth).astype(np.float32)
        worth: NDArray[np.float32] = (1.0 - np.abs(answers - truth) / self._error_scale).astype(np.float32)
        return worth.clip(0.0, 1.0)


def labelled_images(folder: Path, truth: Truth, *, limit: int | None = None) -> Iterator[LabelledImage]:
    """The images of a folder that `truth` names, by path, at most `limit`. Raises: DataError."""
    names = sorted(truth)[:limit]
    for name in names:
        yield LabelledImage(name, read_image(folder / name), truth[name])


def read_truth(folder: Path, labels: Sequence[str]) -> Truth:
    """What the images of a folder show: its file `truth.json`, else one folder a class inside it.

    `truth.json` maps paths within the folder to class numbers, class names or values.
    Raises: DataError naming what is wrong.
    """
    path = folder / "truth.json"
    if path.is_file():
        return _from_file(path, labels)
    found: Truth = {}
    for number, label in enumerate(labels):
        for name in (label, str(number)):
            for image in sorted((folder / name).glob("*")):
                if image.suffix.lower() in SUFFIXES:
                    found[image.relative_to(folder).as_posix()] = float(number)
    if not found:
        raise DataError(
            f"no labels for the images of {folder}",
            file=str(folder),
            why="there is neither a truth.json nor a folder for each class",
        )
    return found


def _from_file(path: Path, labels: Sequence[str]) -> Truth:
    numbers = {label: float(number) for number, label in enumerate(labels)}
    try:
        if path.stat().st_size > TRUTH_CAP_BYTES:
            raise DataError(f"{path} is refused", file=str(path), why=f"over {TRUTH_CAP_BYTES} bytes")
        entries = msgspec.json.decode(path.read_bytes(), type=dict[str, float | str])
    except OSError as error:
        raise DataError(f"{path} cannot be read", file=str(path), why=error.strerror) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is malformed", file=str(path), why=str(error)) from error
    found: Truth = {}
    for name, entry in entries.items():
        parts = Path(name).parts
        if not parts or ".." in parts or Path(name).is_absolute():
            raise DataError(f"{path} is refused", file=str(path), why=f"{name!r} leaves the folder")
        if isinstance(entry, str) and entry not in numbers:
            raise DataError(f"{path} is refused", file=str(path), why=f"{entry!r} is no class of the bundle")
        found[name] = numbers[entry] if isinstance(entry, str) else entry
    if not found:
        raise DataError(f"{path} names no image", file=str(path))
    return found
