"""Whether a manifest agrees with itself: counts, shapes, tables, numbers, names."""

from __future__ import annotations

import math
import re
from itertools import pairwise

from msgspec import UnsetType

from edgeexit.bundle.manifest import (
    Blob,
    Boundary,
    Calibration,
    Exit,
    Manifest,
    RiskControl,
    Stage,
    TensorSpec,
)
from edgeexit.bundle.paths import check_plain
from edgeexit.errors import ManifestError, ShapeError

# Caps: nothing honest comes near them, and nothing below them can exhaust a board's memory.
MOST_STAGES = 64  # 24 blocks with an exit after each is the deepest network published
MOST_TENSORS = 16  # RANet passes four scales, Dyn-Perceiver two streams
MOST_VARIANTS = 16
MOST_LABELS = 65_536  # ImageNet-21k has 21,841
MOST_DIMS = 8
MOST_ELEMENTS = 2**26  # 256 MiB as float32; the largest hidden tensor expected has 443,136 elements
MOST_BINS = 1024  # twenty are enough
MOST_CALIBRATIONS = 64
MOST_BLOB_BYTES = 2**31  # a flatbuffer holds no more
LONGEST_TEXT = 4096

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}([-+][A-Za-z0-9.+-]{1,64})?")
_CREATED = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def blob_path(sha256: str) -> str:
    """Where the blob with this digest lies in every bundle: files are addressed by their content."""
    return f"blobs/sha256/{sha256}"


def check_manifest(manifest: Manifest, *, file: str) -> None:
    """Hold every part of a manifest against the others.

    Raises: ManifestError naming the field, ShapeError, UnsafePath.
    """
    _Checker(manifest, file).check()


class _Checker:
    """One manifest under examination; every refusal names the field at fault."""

    __slots__ = ("_file", "_manifest")

    def __init__(self, manifest: Manifest, file: str) -> None:
        self._manifest = manifest
        self._file = file

    def check(self) -> None:
        manifest = self._manifest
        self._matches(manifest.name, _NAME, "name")
        self._matches(manifest.version, _VERSION, "version")
        if not isinstance(manifest.created, UnsetType):
            self._matches(manifest.created, _CREATED, "created")
        self._within(manifest.serial, 0, 2**53, "serial")  # 2^53: every JSON reader keeps it exact
        count = manifest.stage_count
        self._within(count, 1, MOST_STAGES, "stages")
        self._require(len(manifest.boundaries) == count, "boundaries", f"{count} are needed, one a stage")
        self._require(len(manifest.exits) == count, "exits", f"{count} are needed, one a stage")
        self._labels()
        for b, boundary in enumerate(manifest.boundaries):
            self._boundary(boundary, f"boundaries[{b}]")
        self._input()
        for k, stage in enumerate(manifest.stages):
            self._stage(stage, f"stages[{k}]")
        for k, exit_ in enumerate(manifest.exits):
            self._exit(k, exit_, f"exits[{k}]")
        self._within(len(manifest.risk_controls), 0, MOST_CALIBRATIONS, "risk_controls")
        for i, control in enumerate(manifest.risk_controls):
            self._risk(control, f"risk_controls[{i}]")
        self._golden(manifest.golden)
        self._provenance()

    # the parts

    def _labels(self) -> None:
        manifest = self._manifest
        if manifest.task == "regression":
            self._require(not manifest.labels, "labels", "a regression has none")
            return
        self._within(len(manifest.labels), 2, MOST_LABELS, "labels")
        for i, label in enumerate(manifest.labels):
            self._text(label, f"labels[{i}]")

    def _boundary(self, boundary: Boundary, field: str) -> None:
        self._within(len(boundary.tensors), 1, MOST_TENSORS, f"{field}.tensors")
        self._unique([spec.name for spec in boundary.tensors], f"{field}.tensors")
        for i, spec in enumerate(boundary.tensors):
            self._spec(spec, f"{field}.tensors[{i}]")
        self._unique([codec.codec for codec in boundary.codecs], f"{field}.codecs")
        raw_bytes = sum(spec.size_bytes for spec in boundary.tensors)
        for i, codec in enumerate(boundary.codecs):
            # A codec that enlarges a boundary beyond its raw form and some framing is a mistake.
            self._within(codec.payload_bytes, 1, 2 * raw_bytes + 4096, f"{field}.codecs[{i}].payload_bytes")
            if not isinstance(codec.p95_bytes, UnsetType):
                self._within(codec.p95_bytes, 1, 2 * raw_bytes + 4096, f"{field}.codecs[{i}].p95_bytes")
            self._fraction(abs(codec.quality_cost), f"{field}.codecs[{i}].quality_cost")
        self._packers(boundary, field)

    def _packers(self, boundary: Boundary, field: str) -> None:
        packers = () if isinstance(boundary.packers, UnsetType) else boundary.packers
        self._within(len(packers), 0, MOST_VARIANTS, f"{field}.packers")
        self._unique([name for packer in packers for name in packer.codecs], f"{field}.packers")
        self._unique([packer.name for packer in packers], f"{field}.packers")
        specs = [spec for packer in packers for spec in packer.tensors]
        # What came is told by its tensors' names: whole, or made by which packer.
        self._unique([spec.name for spec in (*boundary.tensors, *specs)], f"{field}.packers")
        offered = {codec.codec for codec in boundary.codecs}
        packed = {name for packer in packers for name in packer.codecs}
        # Where nobody can undo a packer, and for audits, a boundary must travel as it is.
        self._require(not packers or bool(offered - packed), f"{field}.codecs", "all of them need a packer")
        for i, packer in enumerate(packers):
            place = f"{field}.packers[{i}]"
            self._matches(packer.name, _NAME, f"{place}.name")
            self._within(len(packer.codecs), 1, MOST_VARIANTS, f"{place}.codecs")
            self._require(set(packer.codecs) <= offered, f"{place}.codecs", "the boundary has no such codec")
            self._within(len(packer.tensors), 1, MOST_TENSORS, f"{place}.tensors")
            for k, spec in enumerate(packer.tensors):
                self._spec(spec, f"{place}.tensors[{k}]")
            for name, blob in (("pack", packer.pack), ("unpack", packer.unpack), ("golden", packer.golden)):
                self._blob(blob, f"{place}.{name}")
                under_digest = blob.file == blob_path(blob.sha256)
                self._require(under_digest, f"{place}.{name}.file", "a blob lies under its own digest")
            self._within(len(packer.runtimes), 1, MOST_VARIANTS, f"{place}.runtimes")
            for runtime in packer.runtimes:
                self._text(runtime, f"{place}.runtimes")

    def _spec(self, spec: TensorSpec, field: str) -> None:
        self._matches(spec.name, _TENSOR_NAME, f"{field}.name")
        self._within(len(spec.shape), 1, MOST_DIMS, f"{field}.shape")
        for size in spec.shape:
            self._within(size, 1, MOST_ELEMENTS, f"{field}.shape")
        self._require(spec.shape[0] == 1, f"{field}.shape", "the batch comes first and is 1")
        self._within(spec.size, 1, MOST_ELEMENTS, f"{field}.shape")

    def _input(self) -> None:
        how = self._manifest.preprocessing
        self._within(how.height, 1, 65_536, "preprocessing.height")
        self._within(how.width, 1, 65_536, "preprocessing.width")
        channels = 1 if how.color == "gray" else 3
        nhwc = how.layout == "NHWC"
        shape = (1, how.height, how.width, channels) if nhwc else (1, channels, how.height, how.width)
        specs = self._manifest.boundaries[0].tensors
        if len(specs) != 1 or specs[0].shape != shape or specs[0].dtype != "float32":
            raise ShapeError(
                file=self._file,
                stage=0,
                expected=f"one {list(shape)} float32, as preprocessing makes it",
                got=", ".join(str(spec) for spec in specs),
            )

    def _stage(self, stage: Stage, field: str) -> None:
        self._within(stage.parameters, 0, 2**53, f"{field}.parameters")
        self._within(stage.macs, 0, 2**53, f"{field}.macs")
        self._within(len(stage.variants), 1, MOST_VARIANTS, f"{field}.variants")
        names = [variant.name for variant in stage.variants]
        self._unique(names, f"{field}.variants")
        if not isinstance(stage.preferred, UnsetType):
            self._require(stage.preferred in names, f"{field}.preferred", "the stage has no such variant")
        for i, variant in enumerate(stage.variants):
            place = f"{field}.variants[{i}]"
            self._matches(variant.name, _NAME, f"{place}.name")
            self._blob(variant.blob, f"{place}.blob")
            self._require(
                variant.blob.file == blob_path(variant.blob.sha256),
                f"{place}.blob.file",
                "a blob lies under its own digest",
            )
            self._within(len(variant.runtimes), 1, MOST_VARIANTS, f"{place}.runtimes")
            for runtime in variant.runtimes:
                self._text(runtime, f"{place}.runtimes")
            self._finite(variant.parity_max_abs, 0.0, f"{place}.parity_max_abs")

    def _exit(self, k: int, exit_: Exit, field: str) -> None:
        self._spec(exit_.output, f"{field}.output")
        answers = len(self._manifest.labels) if self._manifest.task == "classification" else 2
        if exit_.output.shape != (1, answers) or exit_.output.dtype != "float32":
            raise ShapeError(
                file=self._file, stage=k, expected=f"[1, {answers}] float32", got=str(exit_.output)
            )
        beside = self._manifest.boundaries[k + 1].tensors if k + 1 < self._manifest.stage_count else ()
        self._unique([exit_.output.name, *(spec.name for spec in beside)], f"{field}.output.name")
        self._fraction(exit_.accuracy_float, f"{field}.accuracy_float")
        self._within(len(exit_.calibrations), 1, MOST_VARIANTS, f"{field}.calibrations")
        known = {variant.name for variant in self._manifest.stages[k].variants}
        self._unique([calibration.variant for calibration in exit_.calibrations], f"{field}.calibrations")
        for i, calibration in enumerate(exit_.calibrations):
            place = f"{field}.calibrations[{i}]"
            self._require(calibration.variant in known, f"{place}.variant", "its stage has no such variant")
            self._calibration(k, calibration, place)

    def _calibration(self, k: int, calibration: Calibration, field: str) -> None:
        self._finite(calibration.temperature, 0.0, f"{field}.temperature")
        self._require(calibration.temperature > 0.0, f"{field}.temperature", "it must be above 0")
        self._fraction(calibration.accuracy, f"{field}.accuracy")
        self._within(calibration.samples, 1, 2**53, f"{field}.samples")
        edges = calibration.upper_scores
        self._within(len(edges), 1, MOST_BINS, f"{field}.upper_scores")
        for edge in edges:
            self._fraction(edge, f"{field}.upper_scores")
        rising = all(low < high for low, high in pairwise(edges))
        self._require(rising and edges[-1] == 1.0, f"{field}.upper_scores", "edges must rise and end at 1.0")
        deeper = self._manifest.stage_count - k
        self._require(len(calibration.quality) == deeper, f"{field}.quality", f"{deeper} rows are needed")
        for row in calibration.quality:
            self._require(len(row) == len(edges), f"{field}.quality", f"rows have {len(edges)} bins")
            for quality in row:
                self._fraction(quality, f"{field}.quality")

    def _risk(self, control: RiskControl, field: str) -> None:
        known = {variant.name for stage in self._manifest.stages for variant in stage.variants}
        self._require(control.variant in known, f"{field}.variant", "no stage has such a variant")
        self._fraction(control.epsilon, f"{field}.epsilon")
        self._fraction(control.delta, f"{field}.delta")
        self._within(control.samples, 1, 2**53, f"{field}.samples")
        count = self._manifest.stage_count
        self._require(len(control.thresholds) == count, f"{field}.thresholds", f"{count} are needed")
        for threshold in control.thresholds:
            self._finite(threshold, 0.0, f"{field}.thresholds")
        self._fraction(abs(control.empirical_risk), f"{field}.empirical_risk")
        tolerance = control.tolerance
        of_values = self._manifest.task == "regression" and control.risk == "inconsistency"
        if isinstance(tolerance, UnsetType):
            self._require(not of_values, f"{field}.tolerance", "values need one to be told apart")
        else:
            self._require(of_values, f"{field}.tolerance", "only the inconsistency of values has one")
            self._finite(tolerance, 0.0, f"{field}.tolerance")
        self._text(control.data, f"{field}.data")

    def _golden(self, blob: Blob) -> None:
        self._blob(blob, "golden")
        plain = blob.file.startswith("golden/") and blob.file.endswith(".safetensors")
        self._require(plain, "golden.file", "golden vectors lie at golden/<name>.safetensors")

    def _blob(self, blob: Blob, field: str) -> None:
        check_plain(blob.file)
        self._matches(blob.sha256, _SHA256, f"{field}.sha256")
        self._within(blob.size_bytes, 1, MOST_BLOB_BYTES, f"{field}.size_bytes")

    def _provenance(self) -> None:
        provenance = self._manifest.provenance
        self._text(provenance.network, "provenance.network")
        self._text(provenance.dataset, "provenance.dataset")
        self._text(provenance.licence, "provenance.licence")
        self._within(len(provenance.tools), 0, 64, "provenance.tools")
        for tool in provenance.tools:
            self._text(tool, "provenance.tools")
        for name, digest in (
            ("checkpoint_sha256", provenance.checkpoint_sha256),
            ("recipe_sha256", provenance.recipe_sha256),
            ("weights_sha256", provenance.weights_sha256),
            ("data_sha256", provenance.data_sha256),
        ):
            if isinstance(digest, str):
                self._matches(digest, _SHA256, f"provenance.{name}")

    # the questions

    def _require(self, holds: bool, field: str, why: str) -> None:
        if not holds:
            raise ManifestError(
                f"{self._file} contradicts itself at {field}", file=self._file, field=field, why=why
            )

    def _within(self, value: int, least: int, most: int, field: str) -> None:
        self._require(least <= value <= most, field, f"{value} is not between {least} and {most}")

    def _finite(self, value: float, least: float, field: str) -> None:
        self._require(math.isfinite(value) and value >= least, field, f"{value} is not at least {least}")

    def _fraction(self, value: float, field: str) -> None:
        self._require(0.0 <= value <= 1.0, field, f"{value} is not between 0 and 1")

    def _matches(self, value: str, pattern: re.Pattern[str], field: str) -> None:
        self._require(
            pattern.fullmatch(value) is not None, field, f"{value[:80]!r} is not in the form wanted"
        )

    def _text(self, value: str, field: str) -> None:
        fits = 0 < len(value) <= LONGEST_TEXT and value.isprintable()
        self._require(fits, field, f"{value[:80]!r} is not 1 to {LONGEST_TEXT} printable characters")

    def _unique(self, names: list[str], field: str) -> None:
        self._require(len(set(names)) == len(names), field, "a name occurs twice")
