"""Everything that reads a bundle's bytes, under a coverage-guided fuzzer, one process a target.

Needs `pip install 'edgeexit[fuzz]'`; `make fuzz` does both. EDGEEXIT_FUZZ_SECONDS (60 without it) is what
each target gets. A crash, a typed error of the wrong kind, more memory than allowed or an input that takes
longer than ten seconds ends the run of its target, and with it this benchmark.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import publish
from edgeexit.errors import MissingExtra
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[1]
SECONDS = int(os.environ.get("EDGEEXIT_FUZZ_SECONDS", "60"))
# Python with numpy, onnx, msgspec and the fuzzer itself takes 60 to 150 MiB; no reader may add much to it.
MOST_MEMORY_MB = 512
SLOWEST_S = 10

_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_STATE = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)/.* rss: (\d+)Mb")


@dataclass(frozen=True, slots=True)
class Row:
    """One target. Units: peak_rss_mb, MiB of the whole process; coverage, branches of edgeexit reached."""

    target: str
    runs: int
    seconds: int
    coverage: int
    corpus: int
    peak_rss_mb: int
    sound: bool


@dataclass(frozen=True, slots=True)
class Result:
    """All targets. `crashes` counts those that ended before their time."""

    rows: tuple[Row, ...]
    crashes: int
    runs: int
    most_memory_mb: int


def fuzz(target: str, seconds: int) -> Row:
    """Fuzz one target for so long; what it printed goes to standard error where it failed."""
    with tempfile.TemporaryDirectory(prefix="edgeexit-fuzz-") as found:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.fuzz_bundle", target),
                *(f"-max_total_time={seconds}", f"-rss_limit_mb={MOST_MEMORY_MB}", f"-timeout={SLOWEST_S}"),
                *("-print_final_stats=1", f"-artifact_prefix={ROOT}/build/fuzz-{target}-"),
                found,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    states = [tuple(map(int, each)) for each in _STATE.findall(done.stderr)]
    ended = _DONE.search(done.stderr)
    sound = done.returncode == 0 and ended is not None
    if not sound:
        sys.stderr.write(done.stderr[-4000:])
    return Row(
        target=target,
        runs=int(ended[1]) if ended else 0,
        seconds=int(ended[2]) if ended else 0,
        coverage=max((each[0] for each in states), default=0),
        corpus=states[-1][1] if states else 0,
        peak_rss_mb=max((each[2] for each in states), default=0),
        sound=sound,
    )


def main() -> None:
    """Fuzz every target, and publish what came of it."""
    if importlib.util.find_spec("atheris") is None:
        missing = MissingExtra("atheris", extra="fuzz", needed_for="fuzzing")
        raise SystemExit(f"{missing}; {missing.fix}")
    (ROOT / "build").mkdir(exist_ok=True)
    rows = []
    for target in TARGETS:
        rows.append(fuzz(target, SECONDS))
        sys.stderr.write(f"{target}: {rows[-1]}\n")
    crashes = sum(not row.sound for row in rows)
    publish("fuzz", Result(tuple(rows), crashes, sum(row.runs for row in rows), MOST_MEMORY_MB))
    if crashes:
        sys.exit(1)


if __name__ == "__main__":
    main()
