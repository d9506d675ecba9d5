"""Recorded answers: what every exit and every way of offloading said about samples it never saw.

Recorded once from a bundle, replayed under any costs, links, deadlines and policies. The calibration
maps come from the bundle, fitted on its calibration split; the recording is of test data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Calibration
from edgeexit.decide.calibration import QualityTable, tables_of
from edgeexit.decide.decision import Evidence
from edgeexit.decide.evidence import judge
from edgeexit.errors import DataError, MissingExtra

_Number = TypeVar("_Number", bound=np.generic)

FORMAT = "edgeexit-recording-1"
# A million samples of ten exits with their outputs come to some 500 MB; more is not a recording of ours.
FILE_CAP_BYTES = 512 * 2**20
# The file's own header holds names and shapes of about a dozen arrays.
META_CAP_BYTES = 2**20


class RecordedOption(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way of offloading that was recorded. Units: payload_bytes, on the wire; encode_ms, median."""

    boundary: int
    codec: str
    payload_bytes: int
    quality_cost: float
    encode_ms: float = 0.0


class RecordingNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a recording is of.

    `calibrations` are the bundle's own, one an exit, fitted on data that is not in the recording.
    Units: stage_ms, medians measured while it was made, on `machine`.
    """

    name: str
    bundle_digest: str
    data: str
    task: str
    machine: str
    variants: tuple[str, ...]
    options: tuple[RecordedOption, ...]
    calibrations: tuple[Calibration, ...]
    stage_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Recorded answers of N samples, K exits and O ways of offloading.

    Shapes: scores (N, K) calibrated; answers (N, K) and truth (N,), number of the class or value;
    quality (N, K), what the answer was worth, 1 or 0 for a right or wrong class; option_quality
    (N, O), the same for the gateway's answers; outputs (N, K, C), or None.
    """

    note: RecordingNote
    sources: tuple[str, ...]
    scores: NDArray[np.float32]
    answers: NDArray[np.float32]
    truth: NDArray[np.float32]
    quality: NDArray[np.float32]
    option_quality: NDArray[np.float32]
    outputs: NDArray[np.float32] | None = None

    @property
    def sample_count(self) -> int:
        """N."""
        return int(self.scores.shape[0])

    @property
    def stage_count(self) -> int:
        """K."""
        return int(self.scores.shape[1])

    @property
    def prior_quality(self) -> tuple[float, ...]:
        """Mean quality of every exit on the calibration split. Shapes: (K,)."""
        return tuple(calibration.accuracy for calibration in self.note.calibrations)

    @property
    def tables(self) -> tuple[QualityTable, ...]:
        """The calibrations, ready for lookup. Shapes: (K,)."""
        return tables_of(self.note.calibrations)

    def evidence(self, sample: int, tables: Sequence[QualityTable]) -> list[Evidence]:
        """What every exit says about a sample, as the device would judge it. Shapes: tables (K,)."""
        scores = self.scores[sample].tolist()
        answers = self.answers[sample].tolist()
        classified = self.note.task == "classification"
        return [
            judge(exit_, int(answers[exit_]) if classified else None, score, tables)
            for exit_, score in enumerate(scores)
        ]


def save_recording(recording: Recording, path: Path) -> None:
    """Write a recording as one safetensors file, replacing an older one in one step.

    Raises: MissingExtra.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise _missing() from error
    arrays: dict[str, NDArray[np.generic]] = {
        "scores": recording.scores,
        "answers": recording.answers,
        "truth": recording.truth,
        "quality": recording.quality,
        "option_quality": recording.option_quality,
        "sources": np.frombuffer(msgspec.json.encode(recording.sources), dtype=np.uint8),
    }
    if recording.outputs is not None:
        arrays["outputs"] = recording.outputs
    note = msgspec.json.encode(recording.note).decode()
    data = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={"format": FORMAT, "note": note},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def load_recording(path: Path) -> Recording:
    """Read a recording, strictly. Raises: DataError naming the file and what is wrong; MissingExtra."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise _missing() from error
    file = str(path)
    try:
        if path.stat().st_size > FILE_CAP_BYTES:
            raise DataError(f"{file} is refused", file=file, why=f"larger than {FILE_CAP_BYTES} bytes")
        with safe_open(path, framework="numpy") as stored:
            about = stored.metadata() or {}
            names = set(stored.keys())
            arrays = {name: np.asarray(stored.get_tensor(name)) for name in names}
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{file} is not a recording",
            file=file,
            why=str(error),
            fix="make one with: edgeexit record BUNDLE IMAGES --out FILE",
        ) from error
    return _checked(about, arrays, file=file)


def _missing() -> MissingExtra:
    return MissingExtra("safetensors", extra="device", needed_for="reading and writing recordings")


def _checked(about: dict[str, str], arrays: dict[str, NDArray[np.generic]], *, file: str) -> Recording:
    if about.get("format") != FORMAT:
        raise DataError(f"{file} is not a recording", file=file, why=f"its format is not {FORMAT}")
    try:
        note = msgspec.json.decode(about.get("note", "")[:META_CAP_BYTES], type=RecordingNote)
        sources = msgspec.json.decode(arrays["sources"].tobytes(), type=tuple[str, ...])
        scores = _array(arrays, "scores", np.float32, 2)
        count, stages = scores.shape
        recording = Recording(
            note=note,
            sources=sources,
            scores=scores,
            answers=_array(arrays, "answers", np.float32, 2),
            truth=_array(arrays, "truth", np.float32, 1),
            quality=_array(arrays, "quality", np.float32, 2),
            option_quality=_array(arrays, "option_quality", np.float32, 2),
            outputs=_array(arrays, "outputs", np.float32, 3) if "outputs" in arrays else None,
        )
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        raise DataError(f"{file} is not a recording", file=file, why=str(error)) from error
    shapes = {
        "answers": (recording.answers.shape, (count, stages)),
        "truth": (recording.truth.shape, (count,)),
        "quality": (recording.quality.shape, (count, stages)),
        "option_quality": (recording.option_quality.shape, (count, len(note.options))),
        "calibrations": ((len(note.calibrations),), (stages,)),
        "stage_ms": ((len(note.stage_ms),), (stages,)),
        "sources": ((len(sources),), (count,)),
    }
    for name, (got, wanted) in shapes.items():
        if got != wanted:
            raise DataError(f"{file} contradicts itself", file=file, why=f"{name} is {got}, not {wanted}")
    if count == 0 or stages == 0:
        raise DataError(f"{file} is empty", file=file)
    for exit_, calibration in enumerate(note.calibrations):
        bins = len(calibration.upper_scores)
        rows = calibration.quality
        if bins == 0 or len(rows) != stages - exit_ or any(len(row) != bins for row in rows):
            raise DataError(f"{file} contradicts itself", file=file, why=f"calibration of exit {exit_}")
    fractions = (recording.scores, recording.quality, recording.option_quality)
    if not all(bool(((array >= 0.0) & (array <= 1.0)).all()) for array in fractions):
        raise DataError(f"{file} is refused", file=file, why="a score or quality is not between 0 and 1")
    return recording


def _array(
    arrays: dict[str, NDArray[np.generic]], name: str, dtype: type[_Number], dimensions: int
) -> NDArray[_Number]:
    array = arrays[name]
    if array.dtype != np.dtype(dtype) or array.ndim != dimensions:
        raise ValueError(f"{name} is {array.dtype} with {array.ndim} dimensions")
    return array.astype(dtype, copy=False)
