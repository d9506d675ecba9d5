"""Choosing variants by measurement: the fastest that reproduces its golden vectors on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from edgeexit.bundle.golden import GoldenVectors
from edgeexit.bundle.manifest import Precision, Variant
from edgeexit.bundle.store import Bundle
from edgeexit.errors import RunnerError, ShapeError, VariantRejected
from edgeexit.runner.examine import (
    LEAST_AGREEMENT,
    Floats,
    Trial,
    Verdict,
    agreement_of,
    failed_report,
    judge_trial,
    trial_report,
    try_out,
)
from edgeexit.runner.litert import LiteRTRunner, find_variant
from edgeexit.runner.loading import Runtimes, find_runtimes
from edgeexit.runner.machine import machine_name
from edgeexit.runner.onnx import Provider
from edgeexit.runner.protocol import Clock, LoadedStage, Tensors
from edgeexit.runner.report import (
    SELECTION_SCHEMA,
    SelectionKey,
    SelectionReport,
    VariantReport,
    read_report,
    write_report,
)
from edgeexit.runner.runtime import Runtime
from edgeexit.runner.together import TOGETHER_FILE, can_be_together, load_together, put_together

# Eight vectors tell a broken kernel from a sound one, and keep a ViT-Tiny under a second on one x86 core.
VECTORS = 8
# So many of them tell that one interpreter answers as several: what differs at all differs at once.
COMPARED = 2
# Timing goes on until it has taken this long a stage, or this many rounds: stages of microseconds need
# many, stages of 100 ms have had enough with their golden vectors.
TIMING_MS = 20.0
LEAST_ROUNDS = 3
MOST_ROUNDS = 50
# A variant must be this much faster to displace a more exact one: repeated timings of the same file on a
# busy machine differ by about as much.
FASTER_BY = 0.03

_EXACTNESS: dict[Precision, int] = {"f32": 0, "f16": 1, "int8": 2}


def monotonic_ms() -> float:
    """The usual clock."""
    return perf_counter() * 1000.0


def open_verified(
    bundle: Bundle,
    *,
    threads: int = 1,
    stages: range | None = None,
    prefer: str | None = None,
    clock: Clock = monotonic_ms,
    cache: Path | None = None,
    runtime: Runtime | None = None,
    provider: Provider = "cpu",
) -> tuple[LiteRTRunner, SelectionReport]:
    """An open runner of `stages` (all by default), each in the fastest variant that proved correct here.

    Golden inputs run through every loadable variant; outputs are held against the float network's. Where
    the bundle prefers a variant, what loses more is left out. A
    variant named by `prefer` is taken wherever it passes, whatever its speed. A report kept at `cache`
    for the same bundle, runtimes and machine is believed; otherwise a new one is written there. Beside it
    all stages are kept in one file, as large as theirs, and run by one interpreter where that answers the
    same. `provider` is what ONNX Runtime computes with, where the bundle has ONNX variants and it is
    installed.
    Raises: VariantRejected when no variant of a stage passes, RunnerError when none can be loaded,
    MissingExtra, BundleError.
    """
    count = bundle.manifest.stage_count
    wanted = stages if stages is not None else range(count)
    _check_wanted(bundle, wanted, prefer)
    used = find_runtimes(bundle.manifest, runtime=runtime, provider=provider)
    key = SelectionKey(
        schema=SELECTION_SCHEMA,
        bundle_digest=bundle.digest,
        runtime=used.name,
        runtime_version=used.version,
        machine=machine_name(),
        threads=threads,
        first=wanted.start,
        stop=wanted.stop,
        prefer=prefer,
        beside=used.beside,
    )
    known = read_report(cache, key) if cache is not None else None
    if cache is not None and known is not None:
        reopened = _reopen(bundle, known, used, threads, cache.with_name(TOGETHER_FILE))
        if reopened is not None:
            return reopened, known
    selection = _Selection(bundle, used, threads, wanted, prefer, clock)
    begun_ms = clock()
    chosen = selection.choose()
    loaded = [serving.loaded for serving in chosen]
    medians_ms = tuple(serving.median_ms for serving in chosen)
    del chosen  # interpreters may go
    names = tuple(each.variant.name for each in loaded)
    variants = [each.variant for each in loaded]
    together = False
    if cache is not None and used.tflite is not None and wanted.start == 0 and can_be_together(loaded):
        together = put_together(
            bundle,
            loaded,
            cache.with_name(TOGETHER_FILE),
            inputs=selection.first[:COMPARED],
            runtime=used.tflite,
            threads=threads,
        )
        if not together:
            loaded = [used.load(bundle, k, variant, threads=threads) for k, variant in enumerate(variants)]
    report = SelectionReport(
        key=key,
        chosen=names,
        median_ms=medians_ms,
        variants=tuple(selection.reports),
        elapsed_ms=clock() - begun_ms,
        note=selection.note,
        together=together,
    )
    if cache is not None:
        write_report(cache, report)
    return LiteRTRunner.of_loaded(bundle, loaded, threads=threads), report


@dataclass(frozen=True, slots=True)
class Examination:
    """Every variant of a bundle, examined here; `chosen` ends before the stage that has none to choose.

    Units: elapsed_ms, what the examination took. `failure` says why a stage cannot run here; what lies
    behind it is then unexamined, because nothing feeds it.
    """

    bundle_digest: str
    runtime: str
    runtime_version: str
    machine: str
    threads: int
    chosen: tuple[str, ...]
    variants: tuple[VariantReport, ...]
    elapsed_ms: float
    note: str | None
    failure: RunnerError | None
    beside: str | None = None


def examine_all(
    bundle: Bundle,
    *,
    threads: int = 1,
    clock: Clock = monotonic_ms,
    runtime: Runtime | None = None,
    provider: Provider = "cpu",
) -> Examination:
    """What `open_verified` would find here, with no report believed and none kept; nothing stays loaded.

    Raises: RunnerError when no runtime works here, MissingExtra, BundleError.
    """
    used = find_runtimes(bundle.manifest, runtime=runtime, provider=provider)
    selection = _Selection(bundle, used, threads, range(bundle.manifest.stage_count), None, clock)
    begun_ms = clock()
    chosen: tuple[str, ...]
    failure = None
    try:
        chosen = tuple(serving.loaded.variant.name for serving in selection.choose())
    except RunnerError as error:
        chosen, failure = tuple(selection.won), error
    return Examination(
        bundle_digest=bundle.digest,
        runtime=used.name,
        runtime_version=used.version,
        machine=machine_name(),
        threads=threads,
        chosen=chosen,
        variants=tuple(selection.reports),
        elapsed_ms=clock() - begun_ms,
        note=selection.note,
        failure=failure,
        beside=used.beside,
    )


@dataclass(frozen=True, slots=True)
class _Won:
    """Of one stage: the variant to use, loaded, and the most exact one, which is loaded no more.

    Units: exact_median_ms, of one run of the most exact variant.
    """

    chosen: Trial
    exact: Variant
    exact_median_ms: float

    @property
    def exact_too(self) -> bool:
        """Whether the variant to use is the most exact one."""
        return self.chosen.loaded.variant == self.exact


@dataclass(frozen=True, slots=True)
class _Serving:
    """A stage as it will serve."""

    loaded: LoadedStage
    median_ms: float


class _Selection:
    """One examination of the stages of a bundle, in order."""

    def __init__(
        self,
        bundle: Bundle,
        runtimes: Runtimes,
        threads: int,
        wanted: range,
        prefer: str | None,
        clock: Clock,
    ) -> None:
        self._bundle = bundle
        self._runtimes = runtimes
        self._threads = threads
        self._wanted = wanted
        self._prefer = prefer
        self._clock = clock
        self._labelled = bundle.manifest.task == "classification"
        self.reports: list[VariantReport] = []
        self.won: list[str] = []
        self.note: str | None = None
        self.first: list[Tensors] = []

    def choose(self) -> list[_Serving]:
        """The chosen variant of every wanted stage. Raises: VariantRejected, RunnerError, BundleError."""
        golden = self._bundle.golden()
        spread = np.linspace(0, golden.count - 1, min(VECTORS, golden.count))
        rows = [int(row) for row in spread.round()]
        inputs: list[Tensors] = [golden.sample(row) for row in rows]
        won: list[_Won] = []
        for stage in range(self._wanted.stop):
            if stage == self._wanted.start:
                self.first = inputs
            winner, inputs = self._stage(stage, inputs, golden.outputs[stage][rows])
            if stage in self._wanted:
                won.append(winner)
                self.won.append(winner.chosen.loaded.variant.name)
        if not all(each.exact_too for each in won):
            failed = self._chain([each.chosen for each in won], self.first, golden, rows)
            if failed is not None:
                self.note = (
                    f"exit {failed} is wrong when the fastest variants feed each other: the most exact serve"
                )
                return self._exact(won)
        return [_Serving(each.chosen.loaded, each.chosen.median_ms) for each in won]

    def _exact(self, won: Sequence[_Won]) -> list[_Serving]:
        stages = zip(self._wanted, won, strict=True)
        return [_Serving(self._load(stage, each.exact), each.exact_median_ms) for stage, each in stages]

    def _stage(self, stage: int, inputs: Sequence[Tensors], expected: Floats) -> tuple[_Won, list[Tensors]]:
        """Examine the variants of one stage, the most exact first; what that one gives feeds the next stage.

        Shapes: expected (n, C).
        """
        passed: list[tuple[Trial, Verdict]] = []
        for variant in self._candidates(stage):
            if passed and stage not in self._wanted:
                break  # this stage only carries the vectors to those that run here
            try:
                trial = try_out(self._load(stage, variant), inputs, self._clock)
            except (RunnerError, ShapeError) as error:
                self.reports.append(failed_report(stage, variant, str(error)))
                continue
            reference = passed[0][0].given if passed else None
            verdict = judge_trial(trial, expected, reference, labelled=self._labelled)
            if verdict.why is None:
                passed.append((trial, verdict))
            else:
                self.reports.append(trial_report(trial, verdict))
        if not passed:
            raise self._nothing_passed(stage)
        trials = [trial for trial, _ in passed]
        if stage in self._wanted:
            self._time(trials, inputs)
        self.reports.extend(trial_report(trial, verdict) for trial, verdict in passed)
        exact, chosen = trials[0], self._fastest(stage, trials)
        given = [each.boundary for each in exact.given]
        chosen.given = []
        # The interpreters that lost go here, before the next stage is loaded: memory is short on boards.
        return _Won(chosen, exact.loaded.variant, exact.median_ms), given

    def _candidates(self, stage: int) -> list[Variant]:
        """The most exact first; at equal precision in the order of the bundle."""
        variants = self._bundle.manifest.stages[stage].variants
        return sorted(variants, key=lambda variant: _EXACTNESS[variant.precision])

    def _load(self, stage: int, variant: Variant) -> LoadedStage:
        return self._runtimes.load(self._bundle, stage, variant, threads=self._threads)

    def _time(self, trials: Sequence[Trial], inputs: Sequence[Tensors]) -> None:
        """Time in turn, so that a disturbance meets all alike."""
        begun_ms = self._clock()
        for done in range(MOST_ROUNDS):
            if done >= LEAST_ROUNDS and self._clock() - begun_ms > TIMING_MS:
                return
            for trial in trials:
                trial.run(inputs[done % len(inputs)], self._clock)

    def _fastest(self, stage: int, trials: Sequence[Trial]) -> Trial:
        """The one asked for, else the fastest; of two that are nearly as fast, the more exact."""
        asked = next((trial for trial in trials if trial.loaded.variant.name == self._prefer), None)
        if asked is not None:
            return asked
        allowed = self._within_loss(stage, trials)
        best = allowed[0]
        for trial in allowed:
            if trial.best_ms < best.best_ms * (1.0 - FASTER_BY):
                best = trial
        return best

    def _within_loss(self, stage: int, trials: Sequence[Trial]) -> Sequence[Trial]:
        """Those that lose no more than the bundle's preferred variant: itself, and the more exact ones.

        It was chosen under a bound on what exits may lose, which a faster one might break; all where
        nothing is preferred, or it does not pass here.
        """
        name = self._bundle.manifest.stages[stage].preferred
        preferred = next((trial for trial in trials if trial.loaded.variant.name == name), None)
        if preferred is None:
            return trials
        exactness = _EXACTNESS[preferred.loaded.variant.precision]
        return [
            trial
            for trial in trials
            if trial is preferred or _EXACTNESS[trial.loaded.variant.precision] < exactness
        ]

    def _chain(
        self, chosen: Sequence[Trial], first: Sequence[Tensors], golden: GoldenVectors, rows: Sequence[int]
    ) -> int | None:
        """The first exit that is wrong when the chosen variants feed each other; None when all are right."""
        states = list(first)
        for trial in chosen:
            given = [trial.loaded.run(tensors) for tensors in states]
            got = np.stack([each.output for each in given])  # (n, C)
            stage = trial.loaded.stage
            right = bool(np.isfinite(got).all())
            if right and self._labelled:
                right = agreement_of(got, golden.outputs[stage][rows]) >= LEAST_AGREEMENT
            if not right:
                return stage
            states = [each.boundary for each in given]
        return None

    def _nothing_passed(self, stage: int) -> RunnerError:
        """The error that says why no variant of this stage may be used: the nearest miss counts."""
        failures = [report for report in self.reports if report.stage == stage]
        for report in failures:
            if report.max_abs_diff is not None and report.tolerance is not None:
                return VariantRejected(
                    stage=stage,
                    variant=report.variant,
                    max_abs_diff=report.max_abs_diff,
                    tolerance=report.tolerance,
                )
        return RunnerError(
            f"stage {stage} has no variant that runs here",
            stage=stage,
            why="; ".join(f"{report.variant}: {report.why}" for report in failures),
            fix="convert the network for this runtime, or install ai-edge-litert",
        )


def _check_wanted(bundle: Bundle, wanted: range, prefer: str | None) -> None:
    count = bundle.manifest.stage_count
    if wanted.step != 1 or not 0 <= wanted.start < wanted.stop <= count:
        raise RunnerError(
            "stages cannot be loaded", why=f"{wanted} is no part of the stages 0 to {count - 1}"
        )
    known = {variant.name for stage in bundle.manifest.stages for variant in stage.variants}
    if prefer is not None and prefer not in known:
        raise RunnerError(
            f"variant {prefer!r} cannot be preferred", why=f"this bundle has {', '.join(sorted(known))}"
        )


def _reopen(
    bundle: Bundle, known: SelectionReport, runtimes: Runtimes, threads: int, together: Path
) -> LiteRTRunner | None:
    """A runner of what was chosen before; None where that cannot be loaded any more."""
    try:
        chosen = list(enumerate(known.chosen, start=known.key.first))
        variants = [find_variant(bundle.manifest, stage, name) for stage, name in chosen]
        if known.together and runtimes.tflite is not None:
            loaded = load_together(bundle, variants, together, runtime=runtimes.tflite, threads=threads)
        else:
            stages = zip(range(known.key.first, known.key.stop), variants, strict=True)
            loaded = [runtimes.load(bundle, stage, variant, threads=threads) for stage, variant in stages]
    except (RunnerError, ShapeError):
        return None
    return LiteRTRunner.of_loaded(bundle, loaded, threads=threads)
