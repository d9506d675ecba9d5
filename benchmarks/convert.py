"""What converting takes and gives: seconds, memory, parity, sizes, and times of every variant.

    python -m benchmarks.convert [--quick] [--checkpoint FILE] [--seconds N] [--again]

Each cell runs in a process of its own and is kept under build/benchmarks/convert until all are there: a run
that is cut short, by --seconds too, goes on with the next. --quick takes the three small networks and few
images, and writes no result. `seconds` and `peak_mb` are of the default conversion (f32 and int8) with
nothing kept from before, the network built and torch imported; parity is the largest absolute difference of
any tensor of any stage; `ms` are medians of one thread, all stages together, LiteRT and tflite-runtime each
in its own process.

`int8_speedup` and `int8_worst_loss_points` are of a trained network, the demo's: its checkpoint, on 10,000
canvases of Fashion-MNIST test items. Targets: worst_f32_parity ≤ 1e-4, int8_speedup ≥ 2,
int8_worst_loss_points ≤ 0.5, vit_tiny_s ≤ 60. A megabyte is 10^6 bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from benchmarks._convert_cells import (
    CELL_S,
    ROOT,
    TRAINED,
    by_onnx2tf,
    converted,
    on_tflite_runtime,
    trained,
)
from benchmarks._convert_rows import CaseRow, OtherRow, Result, TfliteTimes, TrainedRow
from benchmarks._random_vit import BUILD
from benchmarks.results import publish

if TYPE_CHECKING:
    from benchmarks._convert_networks import Case

FOLDER = BUILD / "convert"

QUICK_CASES = ("two-tensor-state", "cnn", "vit-small-32")
SAMPLES = 64
QUICK_SAMPLES = 16
_Kept = TypeVar("_Kept", bound=msgspec.Struct)


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
    # The next run measures anew: another checkpoint or other code would find these cells and believe them.
    shutil.rmtree(folder)


def _start_cell(cell: str, *, quick: bool, checkpoint: Path | None) -> None:
    command = [sys.executable, "-m", "benchmarks.convert", "--cell", cell]
    command += ["--quick"] if quick else []
    command += [] if checkpoint is None else ["--checkpoint", str(checkpoint.resolve())]
    subprocess.run(command, cwd=ROOT, check=True, timeout=CELL_S, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _run_cell(cell: str, folder: Path, *, quick: bool, checkpoint: Path | None) -> None:
    kind, _, name = cell.partition(".")
    if kind == "trained":
        _write(folder, cell, trained(folder, checkpoint))
        return
    case = next(each for each in _cases(quick=quick) if each.name == name)
    samples = QUICK_SAMPLES if quick else SAMPLES
    if kind == "case":
        _write(folder, cell, converted(case, folder, samples))
    elif kind == "onnx2tf":
        _write(folder, cell, by_onnx2tf(case, folder))
    else:
        _write(folder, cell, on_tflite_runtime(folder / name))


def _cases(*, quick: bool) -> tuple[Case, ...]:
    from benchmarks._convert_networks import cases

    return tuple(case for case in cases() if not quick or case.name in QUICK_CASES)


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


def _result(rows: tuple[CaseRow, ...], of_trained: TrainedRow) -> Result:
    tiny = {
        each.variant: each.ms
        for row in rows
        for each in row.variants
        if row.case == "vit-tiny-224" and each.ms is not None
    }
    return Result(
        cases=rows,
        trained=of_trained,
        worst_f32_parity=max(of_trained.f32_parity, *(row.f32_parity for row in rows)),
        int8_speedup=round(of_trained.ms["f32"] / of_trained.ms["int8"], 3),
        int8_worst_loss_points=max(of_trained.lost_points["int8"]),
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
