"""What converting takes and gives: seconds, memory, parity, sizes, and times of every variant.

    python -m benchmarks.convert [--quick] [--checkpoint FILE] [--seconds N] [--again]

Each cell runs in a process of its own and is kept under build/benchmarks/convert: a run that is cut short,
by --seconds too, goes on with the next. --quick takes the three small networks and few images, and writes no
result. `seconds` and `peak_mb` are of the default conversion (f32 and int8) with nothing kept from before,
the network built and torch imported; parity is the largest absolute difference of any tensor of any stage;
`ms` are medians of one thread, all stages together, LiteRT and tflite-runtime each in its own process.

`int8_speedup` and `int8_worst_loss_points` are of a trained network, the demo's: its checkpoint, on 10,000
canvases of Fashion-MNIST test items. Targets: worst_f32_parity ≤ 1e-4, int8_speedup ≥ 2,
int8_worst_loss_points ≤ 0.5, vit_tiny_s ≤ 60. A megabyte is 10^6 bytes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from benchmarks._random_vit import BUILD, LabelledImages, random_images
from benchmarks.results import publish

if TYPE_CHECKING:
    from benchmarks._convert_networks import Case
    from edgeexit.bundle.store import Bundle
    from edgeexit.convert.plan import ConversionPlan, VariantName

ROOT = Path(__file__).parent.parent
FOLDER = BUILD / "convert"
DEMO_WORK = ROOT / "build" / "demo" / "work"

ALL: tuple[VariantName, ...] = (
    *("f32", "f16", "int8", "int8-tensor", "int8-static", "int8-full"),
    *("onnx", "onnx-int8"),
)
QUICK_CASES = ("two-tensor-state", "cnn", "vit-small-32")
SAMPLES = 64
QUICK_SAMPLES = 16
TRAINED = "demo-trained"
TEST_IMAGES = 10_000
HELD_OUT = 2000
_Kept = TypeVar("_Kept", bound=msgspec.Struct)
# One cell: what takes longer hangs.
CELL_S = 540.0


class VariantRow(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of a whole network.

    Units: mb; parity, largest absolute difference to the float network in any tensor, on real inputs;
    ms, all stages, with LiteRT, or ONNX Runtime for the variants of its own; tflite_runtime_ms, the same
    there. None where the runtime may not load it or it proved wrong: `refused` says which.
    """

    variant: str
    mb: float
    parity: float
    ms: float | None
    tflite_runtime_ms: float | None = None
    refused: str | None = None
    tflite_runtime_refused: str | None = None


class OtherRow(msgspec.Struct, frozen=True, kw_only=True):
    """The same network by onnx2tf, beside litert-torch's f32 files, one thread, taken in turn.

    Units: seconds, of lowering all stages, its environment being there.
    """

    version: str
    seconds: float
    parity: float
    mb: float
    ms: float
    litert_torch_seconds: float
    litert_torch_mb: float
    litert_torch_ms: float


class CaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """One network. Units: as the names end; `seconds` and `peak_mb` of the default conversion."""

    case: str
    what: str
    stages: int
    parameters: int
    seconds: float
    peak_mb: float
    f32_parity: float
    variants: tuple[VariantRow, ...]
    onnx2tf: OtherRow | None = None


class TrainedRow(msgspec.Struct, frozen=True, kw_only=True):
    """The trained network. Units: points of accuracy lost to f32 at each exit, by variant; ms by variant."""

    checkpoint: str
    test_images: int
    accuracy: dict[str, tuple[float, ...]]
    lost_points: dict[str, tuple[float, ...]]
    ms: dict[str, float]
    f32_parity: float


class TfliteTimes(msgspec.Struct, frozen=True, kw_only=True):
    """What tflite-runtime found: ms by variant, and why others were refused."""

    version: str
    ms: dict[str, float]
    refused: dict[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """Units: as the names end; parities are absolute; speed-ups, f32's time over dynamic int8's."""

    cases: tuple[CaseRow, ...]
    trained: TrainedRow
    worst_f32_parity: float
    int8_speedup: float
    int8_worst_loss_points: float
    vit_tiny_int8_speedup: float
    vit_tiny_s: float
    onnx2tf_worst_parity: float


def main() -> None:
    """Run the cells that are missing, and publish once all are there."""
    parser = argparse.ArgumentParser(description="Benchmark of conversion.")
    parser.add_argument("--quick", action="store_true", help="Small networks, few images; writes no result.")
    parser.add_argument("--checkpoint", type=Path, help="Trained network; the demo's by default.")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="Begin no cell after so many.")
    parser.add_argument("--again", action="store_true", help="Forget cells that were run before.")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    quick = bool(given.quick)
    folder = FOLDER / ("quick" if quick else "full")
    checkpoint: Path | None = given.checkpoint
    if given.cell is not None:
        _run_cell(str(given.cell), folder, quick=quick, checkpoint=checkpoint)
        return
    if given.again:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    names = [case.name for case in _cases(quick=quick)]
    wanted = [f"{kind}.{name}" for name in names for kind in ("case", "onnx2tf", "tflite")]
    if not quick:
        wanted.append(f"trained.{TRAINED}")
    for cell in wanted:
        if (folder / f"{cell}.json").exists():
            continue
        if time.monotonic() - began_s > float(given.seconds):
            print(f"left for the next run: {cell} and what follows")
            return
        print(f"== {cell}", flush=True)
        _start_cell(cell, quick=quick, checkpoint=checkpoint)
    rows = tuple(_row(folder, name) for name in names)
    if quick:
        for row in rows:
            print(msgspec.json.encode(row).decode())
        return
    publish("convert", _result(rows, _read(folder, f"trained.{TRAINED}", TrainedRow)))


def _start_cell(cell: str, *, quick: bool, checkpoint: Path | None) -> None:
    command = [sys.executable, "-m", "benchmarks.convert", "--cell", cell]
    command += ["--quick"] if quick else []
    command += [] if checkpoint is None else ["--checkpoint", str(checkpoint.resolve())]
    subprocess.run(command, cwd=ROOT, check=True, timeout=CELL_S, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _run_cell(cell: str, folder: Path, *, quick: bool, checkpoint: Path | None) -> None:
    kind, _, name = cell.partition(".")
    if kind == "trained":
        _write(folder, cell, _trained(folder, checkpoint))
        return
    case = next(each for each in _cases(quick=quick) if each.name == name)
    samples = QUICK_SAMPLES if quick else SAMPLES
    if kind == "case":
        _write(folder, cell, _converted(case, folder, samples))
    elif kind == "onnx2tf":
        _write(folder, cell, _by_onnx2tf(case, folder))
    else:
        _write(folder, cell, _on_tflite_runtime(folder / name))


def _cases(*, quick: bool) -> tuple[Case, ...]:
    from benchmarks._convert_networks import cases

    return tuple(case for case in cases() if not quick or case.name in QUICK_CASES)


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


def _converted(case: Case, folder: Path, samples: int) -> CaseRow:
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


def _by_onnx2tf(case: Case, folder: Path) -> OtherRow:
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


def _on_tflite_runtime(bundle: Path) -> TfliteTimes:
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


def _trained(folder: Path, checkpoint: Path | None) -> TrainedRow:
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


def _row(folder: Path, name: str) -> CaseRow:
    row = _read(folder, f"case.{name}", CaseRow)
    there = _read(folder, f"tflite.{name}", TfliteTimes)
    return msgspec.structs.replace(
        row,
        variants=tuple(
            msgspec.structs.replace(
                each,
                tflite_runtime_ms=there.ms.get(each.variant),
                tflite_runtime_refused=there.refused.get(each.variant),
            )
            for each in row.variants
        ),
        onnx2tf=_read(folder, f"onnx2tf.{name}", OtherRow),
    )


def _result(rows: tuple[CaseRow, ...], trained: TrainedRow) -> Result:
    tiny = {
        each.variant: each.ms
        for row in rows
        for each in row.variants
        if row.case == "vit-tiny-224" and each.ms is not None
    }
    return Result(
        cases=rows,
        trained=trained,
        worst_f32_parity=max(trained.f32_parity, *(row.f32_parity for row in rows)),
        int8_speedup=round(trained.ms["f32"] / trained.ms["int8"], 3),
        int8_worst_loss_points=max(trained.lost_points["int8"]),
        vit_tiny_int8_speedup=round(tiny["f32"] / tiny["int8"], 3),
        vit_tiny_s=next(row.seconds for row in rows if row.case == "vit-tiny-224"),
        onnx2tf_worst_parity=max(row.onnx2tf.parity for row in rows if row.onnx2tf is not None),
    )


def _write(folder: Path, cell: str, content: msgspec.Struct) -> None:
    part = folder / f"{cell}.json.part"
    part.write_bytes(msgspec.json.encode(content))
    part.replace(folder / f"{cell}.json")


def _read(folder: Path, cell: str, kind: type[_Kept]) -> _Kept:
    return msgspec.json.decode((folder / f"{cell}.json").read_bytes(), type=kind)


if __name__ == "__main__":
    main()
