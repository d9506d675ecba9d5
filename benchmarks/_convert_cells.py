"""What `benchmarks.convert` measures: one network converted, by the other back end, elsewhere, or trained."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchmarks._convert_rows import CaseRow, OtherRow, TfliteTimes, TrainedRow, VariantRow
from benchmarks._random_vit import LabelledImages, random_images

if TYPE_CHECKING:
    from benchmarks._convert_networks import Case
    from edgeexit.bundle.store import Bundle
    from edgeexit.convert.plan import ConversionPlan, VariantName

ROOT = Path(__file__).parent.parent
DEMO_WORK = ROOT / "build" / "demo" / "work"

ALL: tuple[VariantName, ...] = (
    *("f32", "f16", "int8", "int8-tensor", "int8-static", "int8-full"),
    *("onnx", "onnx-int8"),
)
TRAINED = "demo-trained"
TEST_IMAGES = 10_000
HELD_OUT = 2000
# One cell: what takes longer hangs.
CELL_S = 540.0


def _images(case: Case, count: int) -> LabelledImages:
    """Fields of colour; what random weights answer to them says nothing, so labels are drawn."""
    targets = np.random.default_rng(2).integers(0, case.classes, count)
    return LabelledImages(random_images(count, 1, case.image_size), targets)


def _plan(case: Case, variants: tuple[VariantName, ...]) -> ConversionPlan:
    from edgeexit.convert.plan import ConversionPlan, Tolerances

    return ConversionPlan(
        name=f"{case.name}-random",
        version="1.0.0",
        network=case.what,
        dataset="fields of colour",
        licence="MIT",
        labels=tuple(f"class {i}" for i in range(case.classes)),
        variants=variants,
        # Logits of random weights lie close together: what int8 answers to such images means nothing here.
        tolerances=Tolerances(agreement=0.0),
        codec_samples=8,
    )


def converted(case: Case, folder: Path, samples: int) -> CaseRow:
    from edgeexit.bundle.store import open_bundle
    from edgeexit.convert.conversion import convert

    network, images = case.make(), _images(case, samples)
    began_s = time.monotonic()
    default = folder / f"{case.name}-default"
    shutil.rmtree(default, ignore_errors=True)
    report = convert(network, _plan(case, ("f32", "int8")), calibration=images, test=None, out=default)
    seconds = time.monotonic() - began_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    out = folder / case.name
    every = convert(network, _plan(case, ALL), calibration=images, test=None, out=out)
    bundle = open_bundle(out)
    ms, refused = _times(bundle)
    return CaseRow(
        case=case.name,
        what=case.what,
        stages=len(report.stages),
        parameters=sum(row.parameters for row in report.stages),
        seconds=round(seconds, 2),
        peak_mb=round(peak_mb, 1),
        f32_parity=max(row.variants[0].tensor_max_abs for row in report.stages),
        variants=tuple(
            VariantRow(
                variant=name,
                mb=round(sum(row.variants[i].size_bytes for row in every.stages) / 1e6, 3),
                parity=max(row.variants[i].tensor_max_abs for row in every.stages),
                ms=ms.get(name),
                refused=refused.get(name),
            )
            for i, name in enumerate(ALL)
        ),
    )


def _times(bundle: Bundle) -> tuple[dict[str, float], dict[str, str]]:
    """What all stages of each variant take here, and why others may not be used."""
    from edgeexit.runner.selection import examine_all

    found = examine_all(bundle)
    times: dict[str, float] = {}
    refused: dict[str, str] = {}
    for report in found.variants:
        if not report.passed:
            refused[report.variant] = report.why or "it failed"
        elif report.median_ms is not None:
            times[report.variant] = round(times.get(report.variant, 0.0) + report.median_ms, 4)
    return {name: ms for name, ms in times.items() if name not in refused}, refused


def by_onnx2tf(case: Case, folder: Path) -> OtherRow:
    from edgeexit.convert.lowering import LiteRTTorch, Lowering
    from edgeexit.convert.mixture import time_variants
    from edgeexit.convert.onnx2tf import Onnx2tf
    from edgeexit.convert.parity import check_parity, references
    from edgeexit.convert.plan import network_input
    from edgeexit.convert.slicing import slice_network

    images = network_input(random_images(8, 1, case.image_size))
    stages = slice_network(case.make(), images[:1], task="classification", classes=case.classes)
    samples = references(stages, images[:, None])  # n C H W -> n 1 C H W
    other = Onnx2tf(tell=lambda line: None)
    # Installing it, and the first import of each exporter, is no part of lowering a stage.
    backs: dict[str, Lowering] = {"litert-torch": LiteRTTorch(), "onnx2tf": other}
    files: dict[str, list[Path]] = {}
    seconds: dict[str, float] = {}
    for name, back_end in backs.items():
        back_end.lower(stages[-1], samples[0][-1].inputs)
        began_s = time.monotonic()
        files[name] = []
        for stage in stages:
            path = folder / f"{case.name}.{name}.{stage.index}"
            path.write_bytes(back_end.lower(stage, samples[0][stage.index].inputs))
            files[name].append(path)
        seconds[name] = round(time.monotonic() - began_s, 2)
    found = check_parity(stages, files["onnx2tf"], samples, tolerance=1e-4)
    times = time_variants(stages, files, samples[0])
    sizes = {name: round(sum(path.stat().st_size for path in each) / 1e6, 3) for name, each in files.items()}
    return OtherRow(
        version=other.tools[-1],
        seconds=seconds["onnx2tf"],
        parity=max(parity.tensor_max_abs for parity in found),
        mb=sizes["onnx2tf"],
        ms=round(sum(times["onnx2tf"]), 4),
        litert_torch_seconds=seconds["litert-torch"],
        litert_torch_mb=sizes["litert-torch"],
        litert_torch_ms=round(sum(times["litert-torch"]), 4),
    )


# Runs in an environment with tflite-runtime and nothing of what this process imports.
_THERE = """
import json, sys
from pathlib import Path
from edgeexit.bundle.store import open_bundle
from edgeexit.runner.selection import examine_all
found = examine_all(open_bundle(Path(sys.argv[1])))
assert found.runtime == "tflite-runtime", found.runtime
rows = [(each.variant, each.passed, each.why, each.median_ms) for each in found.variants]
print(json.dumps([found.runtime_version, rows]))
"""


def on_tflite_runtime(bundle: Path) -> TfliteTimes:
    from edgeexit.convert.environment import ToolEnvironment, cache_folder, require_interpreter

    # Its newest wheels are for 3.11.
    interpreter = require_interpreter((3, 9), (3, 11), needed_for="tflite-runtime")
    text = Path(__file__).with_name("_tflite_runtime.txt").read_text(encoding="utf-8")
    python = ToolEnvironment("tflite-runtime", text, interpreter).python(cache_folder())
    done = subprocess.run(
        [str(python), "-c", _THERE, str(bundle)],
        check=True,
        capture_output=True,
        text=True,
        timeout=CELL_S,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    version, rows = msgspec.json.decode(
        done.stdout, type=tuple[str, list[tuple[str, bool, str | None, float | None]]]
    )
    times: dict[str, float] = {}
    refused: dict[str, str] = {}
    for variant, passed, why, median_ms in rows:
        if not passed:
            refused[variant] = why or "it failed"
        elif median_ms is not None:
            times[variant] = round(times.get(variant, 0.0) + median_ms, 4)
    kept = {name: ms for name, ms in times.items() if name not in refused}
    return TfliteTimes(version=version, ms=kept, refused=refused)


def trained(folder: Path, checkpoint: Path | None) -> TrainedRow:
    from edgeexit.bundle.store import open_bundle
    from edgeexit.convert.conversion import convert
    from edgeexit.convert.plan import ConversionPlan
    from edgeexit.training.clutter import Clutter
    from edgeexit.training.recipe_data import clutter_data
    from edgeexit.training.stored import read_stored

    found = sorted(DEMO_WORK.glob("*.safetensors")) if checkpoint is None else [checkpoint]
    if not found:
        raise SystemExit("no trained network: run `make demo`, or name one with --checkpoint")
    stored = read_stored(found[-1])
    data = clutter_data(
        Clutter(canvas=32, scrap=10, under=3, over=1), None, print, held_out=HELD_OUT, test=TEST_IMAGES
    )
    # Those that run on CPUs as they are; the ONNX ones are timed with the other networks.
    variants: tuple[VariantName, ...] = ("f32", "f16", "int8", "int8-tensor", "int8-static")
    out = folder / TRAINED
    plan = ConversionPlan(
        name=TRAINED,
        version="1.0.0",
        network=str(stored.description),
        dataset=data.name,
        licence="MIT",
        labels=stored.labels or data.classes,
        variants=variants,
        codec_samples=8,
    )
    report = convert(stored.network, plan, calibration=data.held_out, test=data.test, out=out)
    accuracy: dict[str, tuple[float, ...]] = {
        name: tuple(row.variants[i].accuracy_test or 0.0 for row in report.stages)
        for i, name in enumerate(variants)
    }
    lost: dict[str, tuple[float, ...]] = {
        name: tuple(round(100.0 * (f - v), 3) for f, v in zip(accuracy["f32"], each, strict=True))
        for name, each in accuracy.items()
    }
    return TrainedRow(
        checkpoint=found[-1].name,
        test_images=TEST_IMAGES,
        accuracy=accuracy,
        lost_points=lost,
        ms=_times(open_bundle(out))[0],
        f32_parity=max(row.variants[0].tensor_max_abs for row in report.stages),
    )
