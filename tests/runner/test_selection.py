"""Nothing is trusted unmeasured: variants prove themselves here, and the fastest sound one serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from edgeexit.bundle import Bundle, write_bundle
from edgeexit.bundle.manifest import Variant
from edgeexit.errors import RunnerError, VariantRejected
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.report import SelectionReport
from edgeexit.runner.selection import open_verified

if TYPE_CHECKING:
    from tests.runner.conftest import Bench

pytestmark = pytest.mark.litert

replace = msgspec.structs.replace


def variant(bundle: Bundle, stage: int, name: str) -> Variant:
    return next(each for each in bundle.manifest.stages[stage].variants if each.name == name)


def why(report: SelectionReport, stage: int, name: str) -> str:
    found = [each.why for each in report.rejected() if (each.stage, each.variant) == (stage, name)]
    assert len(found) == 1
    assert found[0] is not None
    return found[0]


def test_the_fastest_sound_variant_of_each_stage_serves(tiny_bundle: Bundle, bench: Bench) -> None:
    bench.slow(variant(tiny_bundle, 0, "f32"), 10.0)
    bench.slow(variant(tiny_bundle, 0, "int8"), 4.0)
    bench.slow(variant(tiny_bundle, 1, "f32"), 3.0)
    bench.slow(variant(tiny_bundle, 1, "int8"), 9.0)
    bench.slow(variant(tiny_bundle, 2, "f32"), 7.0)
    bench.slow(variant(tiny_bundle, 2, "int8"), 2.0)
    runner, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.chosen == ("int8", "f32", "int8")
    assert report.median_ms == (4.0, 3.0, 2.0)
    assert [runner.variant(k) for k in range(3)] == ["int8", "f32", "int8"]
    assert report.rejected() == ()
    assert {(each.stage, each.variant) for each in report.variants} == {
        (k, name) for k in range(3) for name in ("f32", "int8")
    }
    runner.close()


def test_the_runner_is_open_and_says_what_the_network_said(tiny_bundle: Bundle) -> None:
    golden = tiny_bundle.golden()
    runner, report = open_verified(tiny_bundle)
    tensors: Tensors = golden.sample(5)
    for k in range(3):
        given = runner.run(k, tensors)
        assert given.output.argmax() == golden.outputs[k][5].argmax()
        tensors = given.boundary
    assert all(ms > 0.0 for ms in report.median_ms)
    runner.close()


def test_of_two_about_as_fast_the_more_exact_serves(tiny_bundle: Bundle, bench: Bench) -> None:
    for k in range(3):
        bench.slow(variant(tiny_bundle, k, "f32"), 10.0)
        bench.slow(variant(tiny_bundle, k, "int8"), 9.9)
    _, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.chosen == ("f32", "f32", "f32")


def test_fast_garbage_is_rejected_with_its_figures(tiny_bundle: Bundle, bench: Bench) -> None:
    bench.slow(variant(tiny_bundle, 1, "int8"), 0.1)
    bench.wrong(variant(tiny_bundle, 1, "int8"), lambda value, _: np.roll(value, 1, axis=-1))
    _, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.chosen[1] == "f32"
    assert "outputs differ" in why(report, 1, "int8")
    rejected = report.rejected()[0]
    assert rejected.max_abs_diff is not None
    assert rejected.tolerance is not None
    assert rejected.max_abs_diff > rejected.tolerance


def test_a_small_error_of_a_float_variant_is_rejected(tiny_bundle: Bundle, bench: Bench) -> None:
    bench.wrong(variant(tiny_bundle, 0, "f32"), lambda value, _: value + np.float32(0.01))
    bench.slow(variant(tiny_bundle, 0, "int8"), 50.0)
    _, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.chosen[0] == "int8"
    assert "outputs differ" in why(report, 0, "f32")


def test_answers_that_are_not_numbers_are_rejected(tiny_bundle: Bundle, bench: Bench) -> None:
    bench.wrong(variant(tiny_bundle, 2, "int8"), lambda value, _: value * np.float32("nan"))
    _, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert why(report, 2, "int8") == "its answers are not finite"
    assert msgspec.json.decode(msgspec.json.encode(report), type=SelectionReport) == report


def test_a_right_exit_beside_a_wrong_boundary_is_rejected(tiny_bundle: Bundle, bench: Bench) -> None:
    def only_boundary(value: np.ndarray, _: np.ndarray) -> np.ndarray:
        return value * np.float32(0.0) if value.ndim == 3 else value

    bench.slow(variant(tiny_bundle, 0, "int8"), 0.1)
    bench.wrong(variant(tiny_bundle, 0, "int8"), only_boundary)
    _, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert "boundary tensors differ" in why(report, 0, "int8")


def test_labels_that_change_are_rejected_whatever_the_tolerance(
    tiny_bundle: Bundle, bench: Bench, tmp_path: Path
) -> None:
    manifest = tiny_bundle.manifest
    boundless = [
        replace(stage, variants=tuple(replace(each, parity_max_abs=1e9) for each in stage.variants))
        for stage in manifest.stages
    ]
    files = {blob.file: tiny_bundle.blob_path(blob).read_bytes() for blob in manifest.blobs()}
    bundle = write_bundle(tmp_path / "out", replace(manifest, stages=tuple(boundless)), files)

    def just_another_label(value: np.ndarray, _: np.ndarray) -> np.ndarray:
        if value.ndim == 2:
            second, first = np.sort(value[0])[-2:]
            value[0, value.argmax()] -= 1.01 * (first - second)
        return value

    bench.wrong(variant(bundle, 0, "int8"), just_another_label)
    _, report = open_verified(bundle, clock=bench.clock, runtime=bench.runtime())
    assert "keep their label" in why(report, 0, "int8")


def test_when_no_variant_passes_the_error_says_how_far_off(tiny_bundle: Bundle, bench: Bench) -> None:
    for name in ("f32", "int8"):
        bench.wrong(variant(tiny_bundle, 1, name), lambda value, _: value + np.float32(100.0))
    with pytest.raises(VariantRejected) as caught:
        open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert caught.value.stage == 1
    assert caught.value.max_abs_diff == pytest.approx(100.0, rel=0.1)


def test_when_no_variant_loads_the_error_says_why(tiny_bundle: Bundle, bench: Bench) -> None:
    for name in ("f32", "int8"):
        bench.unloadable(variant(tiny_bundle, 0, name))
    with pytest.raises(RunnerError, match="builtin opcode") as caught:
        open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert not isinstance(caught.value, VariantRejected)
    assert caught.value.stage == 0


def test_a_variant_that_cannot_load_leaves_the_others(tiny_bundle: Bundle, bench: Bench) -> None:
    bench.unloadable(variant(tiny_bundle, 0, "f32"))
    _, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.chosen[0] == "int8"
    assert "builtin opcode" in why(report, 0, "f32")


def test_int8_is_not_even_loaded_by_a_runtime_it_is_not_for(tiny_bundle: Bundle, bench: Bench) -> None:
    bench.name = "tflite-runtime"
    _, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.chosen == ("f32", "f32", "f32")
    assert "tflite-runtime does not run it" in why(report, 0, "int8")
    assert len(bench.made) == 3


def test_a_preferred_variant_serves_where_it_passes(tiny_bundle: Bundle, bench: Bench) -> None:
    for k in range(3):
        bench.slow(variant(tiny_bundle, k, "int8"), 50.0)
    bench.wrong(variant(tiny_bundle, 1, "int8"), lambda value, _: -value)
    _, report = open_verified(tiny_bundle, prefer="int8", clock=bench.clock, runtime=bench.runtime())
    assert report.chosen == ("int8", "f32", "int8")
    with pytest.raises(RunnerError, match="f99"):
        open_verified(tiny_bundle, prefer="f99", clock=bench.clock, runtime=bench.runtime())


def test_errors_that_add_up_along_the_chain_bring_back_the_exact_variants(
    tiny_bundle: Bundle, bench: Bench
) -> None:
    # Tokens come out of a ReLU: a negative one marks what the fast variant gave, and stage 1 cannot bear
    # it. In the examination it is fed by the exact variant; only the chain shows what the two do together.
    def marked(value: np.ndarray, _: np.ndarray) -> np.ndarray:
        if value.ndim == 3:
            value[0, 0, 0] = -0.01
        return value

    bench.slow(variant(tiny_bundle, 0, "f32"), 10.0)
    bench.wrong(variant(tiny_bundle, 0, "int8"), marked)
    for name in ("f32", "int8"):
        bench.wrong(
            variant(tiny_bundle, 1, name), lambda value, given: -value if given.min() < 0.0 else value
        )
    runner, report = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.rejected() == ()
    assert report.note is not None
    assert "exit 1" in report.note
    assert report.chosen == ("f32", "f32", "f32")
    runner.close()


@pytest.mark.parametrize("stages", [range(1), range(2), range(1, 3), range(2, 3), range(3)])
def test_any_part_of_the_network_can_be_opened(tiny_bundle: Bundle, bench: Bench, stages: range) -> None:
    runner, report = open_verified(tiny_bundle, stages=stages, clock=bench.clock, runtime=bench.runtime())
    assert runner.stages == tuple(stages)
    assert len(report.chosen) == len(report.median_ms) == len(stages)
    runner.close()


@pytest.mark.parametrize("stages", [range(0), range(4), range(0, 3, 2), range(-1, 2), range(2, 1)])
def test_no_part_of_the_network_is_refused(tiny_bundle: Bundle, stages: range) -> None:
    with pytest.raises(RunnerError, match="no part"):
        open_verified(tiny_bundle, stages=stages)


def test_a_kept_report_is_believed(tiny_bundle: Bundle, bench: Bench, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "selection.json"
    _, first = open_verified(tiny_bundle, clock=bench.clock, cache=cache, runtime=bench.runtime())
    runs_ms = bench.now_ms
    runner, again = open_verified(tiny_bundle, clock=bench.clock, cache=cache, runtime=bench.runtime())
    assert again == first
    assert bench.now_ms == runs_ms  # nothing was run
    assert runner.run(0, tiny_bundle.golden().sample(0)).output.shape == (3,)
    assert [place.name for place in cache.parent.iterdir()] == ["selection.json"]


def test_a_kept_report_of_something_else_is_not_believed(
    tiny_bundle: Bundle, bench: Bench, tmp_path: Path
) -> None:
    cache = tmp_path / "selection.json"
    open_verified(tiny_bundle, clock=bench.clock, cache=cache, runtime=bench.runtime())
    for change in ("version", "threads", "stages", "prefer"):
        runs_ms = bench.now_ms
        if change == "version":
            bench.version = "9.9.9"
        open_verified(
            tiny_bundle,
            clock=bench.clock,
            cache=cache,
            runtime=bench.runtime(),
            threads=2 if change == "threads" else 1,
            stages=range(2) if change == "stages" else None,
            prefer="int8" if change == "prefer" else None,
        )
        assert bench.now_ms > runs_ms


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[" * 10_000, b"\xff", b"null", b'{"chosen": 1}', b"x" * 2**21]
)
def test_a_bad_cache_is_measured_anew_and_mended(
    tiny_bundle: Bundle, bench: Bench, tmp_path: Path, damage: bytes
) -> None:
    cache = tmp_path / "selection.json"
    cache.write_bytes(damage)
    _, report = open_verified(tiny_bundle, clock=bench.clock, cache=cache, runtime=bench.runtime())
    assert bench.now_ms > 0.0
    assert msgspec.json.decode(cache.read_bytes(), type=SelectionReport) == report


def test_a_cache_that_names_a_lost_variant_is_measured_anew(
    tiny_bundle: Bundle, bench: Bench, tmp_path: Path
) -> None:
    cache = tmp_path / "selection.json"
    _, report = open_verified(tiny_bundle, clock=bench.clock, cache=cache, runtime=bench.runtime())
    cache.write_bytes(msgspec.json.encode(replace(report, chosen=("f32", "f64", "f32"))))
    runs_ms = bench.now_ms
    _, again = open_verified(tiny_bundle, clock=bench.clock, cache=cache, runtime=bench.runtime())
    assert bench.now_ms > runs_ms
    assert again.chosen == report.chosen


def test_a_cache_that_cannot_be_written_is_no_error(
    tiny_bundle: Bundle, bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    runner, _ = open_verified(
        tiny_bundle, clock=bench.clock, cache=tmp_path / "file" / "selection.json", runtime=bench.runtime()
    )
    runner.close()


def preferring(bundle: Bundle, out: Path, *names: str) -> Bundle:
    """The same bundle with a variant preferred for each stage."""
    stages = tuple(
        replace(stage, preferred=name) for stage, name in zip(bundle.manifest.stages, names, strict=True)
    )
    files = {blob.file: bundle.blob_path(blob).read_bytes() for blob in bundle.manifest.blobs()}
    return write_bundle(out, replace(bundle.manifest, stages=stages), files)


def test_nothing_serves_that_loses_more_than_the_preferred_variant(
    tiny_bundle: Bundle, bench: Bench, tmp_path: Path
) -> None:
    bundle = preferring(tiny_bundle, tmp_path / "preferring", "f32", "int8", "int8")
    for stage in range(3):
        bench.slow(variant(bundle, stage, "f32"), 9.0 if stage < 2 else 1.0)
        bench.slow(variant(bundle, stage, "int8"), 2.0)
    _, report = open_verified(bundle, clock=bench.clock, runtime=bench.runtime())
    # Stage 0 may not lose what int8 loses; stage 2 is faster in what is more exact than its preferred one.
    assert report.chosen == ("f32", "int8", "f32")


def test_a_preferred_variant_that_is_wrong_here_does_not_serve(
    tiny_bundle: Bundle, bench: Bench, tmp_path: Path
) -> None:
    bundle = preferring(tiny_bundle, tmp_path / "preferring", "int8", "int8", "int8")
    bench.wrong(variant(bundle, 1, "int8"), lambda said, given: said[..., ::-1].copy())
    _, report = open_verified(bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.chosen[1] == "f32"


def test_per_channel_int8_never_serves_on_tflite_runtime_whatever_a_bundle_claims(
    tiny_bundle: Bundle, bench: Bench, tmp_path: Path
) -> None:
    """That runtime answers garbage to it without an error: marked for it or preferred, it must not pass."""
    stages = tuple(
        replace(
            stage,
            preferred="int8",
            variants=tuple(
                replace(each, runtimes=("ai-edge-litert", "tflite-runtime")) for each in stage.variants
            ),
        )
        for stage in tiny_bundle.manifest.stages
    )
    files = {blob.file: tiny_bundle.blob_path(blob).read_bytes() for blob in tiny_bundle.manifest.blobs()}
    bundle = write_bundle(tmp_path / "claims", replace(tiny_bundle.manifest, stages=stages), files)
    bench.name, bench.version = "tflite-runtime", "2.14.0"
    rng = np.random.default_rng(6)
    for stage in range(3):
        bench.slow(variant(bundle, stage, "int8"), 0.1)
        bench.wrong(
            variant(bundle, stage, "int8"),
            lambda said, given: rng.permuted(said, axis=-1) * np.float32(1.5),
        )
    _, report = open_verified(bundle, clock=bench.clock, runtime=bench.runtime())
    assert report.chosen == ("f32", "f32", "f32")
    _, marked = open_verified(tiny_bundle, clock=bench.clock, runtime=bench.runtime())
    assert "tflite-runtime does not run it" in why(marked, 0, "int8")
