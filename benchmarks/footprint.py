"""What the device side weighs: on disk, in memory, in time to start.

    python -m benchmarks.footprint [--starts N]

A wheel is built and installed with its `device` extra, as constraints.txt pins it, into a fresh virtual
environment; there the daemon runs a ViT-Tiny bundle on images of noise. `first_answer_s` is of a first
start, which verifies and times every variant of every stage; `first_answer_again_s` of the next one, which
believes what the first one kept. Targets: installed_mb ≤ 200, import_s ≤ 0.3, rss_mb ≤ 120,
first_answer_s ≤ 2. A megabyte is 10^6 bytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks._random_vit import BUILD, vit_tiny_bundle
from benchmarks.results import publish
from edgeexit.decide.answer import Answer
from edgeexit.device.records import RunStarted, read_records

ROOT = Path(__file__).parent.parent
FOLDER = BUILD / "footprint"

IMPORTS = 10
IMAGES = 8
# Memory is read once so many frames were answered: by then every buffer was used.
FRAMES = 40
# A start takes about a second; this only bounds a daemon that does not answer.
PATIENCE_S = 120.0

# Only these reach the measured processes: no Python path of the environment that measures.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Result:
    """Units: as the names end; medians of the starts.

    packages_mb, the heaviest installed ones; stages_ms, the chosen variants of all stages together as the
    daemon timed them at its first start: the reference time in the profiles of devices/ is of the same
    network in int8 and in one piece.
    """

    installed_mb: float
    import_s: float
    rss_mb: float
    rss_peak_mb: float
    first_answer_s: float
    first_answer_again_s: float
    bundle_mb: float
    stages_ms: float
    variants: tuple[str, ...]
    starts: int
    packages_mb: dict[str, float]


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the daemon."""

    first_answer_s: float
    rss_mb: float
    rss_peak_mb: float
    stages_ms: float
    variants: tuple[str, ...]


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description="what the device side weighs")
    parser.add_argument("--starts", type=int, default=5)
    starts = parser.parse_args().starts
    bundle = vit_tiny_bundle()
    site = installed_site()
    packages = package_sizes_mb(site)
    images = noise_folder()
    first: list[Start] = []
    again: list[Start] = []
    for index in range(starts):
        state = FOLDER / "state"
        shutil.rmtree(state, ignore_errors=True)
        first.append(run_daemon(bundle, images, state))
        again.append(run_daemon(bundle, images, state))
        print(
            f"start {index + 1} of {starts}: first answer after {first[-1].first_answer_s:.2f} s, "
            f"again {again[-1].first_answer_s:.2f} s; {first[-1].rss_mb:.1f} MB resident"
        )
    publish(
        "footprint",
        Result(
            installed_mb=round(sum(packages.values()), 1),
            import_s=round(import_time_s(), 4),
            rss_mb=round(median(start.rss_mb for start in first + again), 1),
            rss_peak_mb=round(max(start.rss_peak_mb for start in first + again), 1),
            first_answer_s=round(median(start.first_answer_s for start in first), 3),
            first_answer_again_s=round(median(start.first_answer_s for start in again), 3),
            bundle_mb=round(size_mb(bundle), 1),
            stages_ms=round(min(start.stages_ms for start in first), 2),
            variants=first[-1].variants,
            starts=starts,
            packages_mb={name: round(packages[name], 1) for name in heaviest(packages)},
        ),
    )


def environment() -> Mapping[str, str]:
    """What a measured process sees of this one's environment."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}


def python() -> Path:
    """The interpreter of the fresh environment."""
    return FOLDER / "venv" / "bin" / "python"


def installed_site() -> Path:
    """A fresh environment with nothing but the wheel and its `device` extra; its site-packages."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    wheels = FOLDER / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
    # The build isolates nothing: setuptools is pinned beside us, and no network is needed for it.
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT)], check=True
    )
    (wheel,) = wheels.glob("edgeexit-*.whl")
    venv.create(FOLDER / "venv", with_pip=False)
    constraints = str(ROOT / "constraints.txt")
    subprocess.run(
        [*pip, "--python", str(python()), "install", "-c", constraints, f"{wheel}[device]"], check=True
    )
    (site,) = (FOLDER / "venv" / "lib").glob("python3*/site-packages")
    return site


def size_mb(path: Path) -> float:
    """Bytes of all files below, links not followed, in megabytes."""
    if path.is_file():
        return path.stat().st_size / 1e6
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir()) / 1e6


def package_sizes_mb(site: Path) -> dict[str, float]:
    """Megabytes of each entry of site-packages; the libraries beside a package count with it."""
    sizes: dict[str, float] = {}
    for entry in sorted(site.iterdir()):
        name = re.sub(r"(\.libs|-[0-9].*|\.py)$", "", entry.name).lower().replace("-", "_")
        sizes[name] = sizes.get(name, 0.0) + size_mb(entry)
    return sizes


def heaviest(packages: Mapping[str, float], count: int = 6) -> list[str]:
    """Names of the heaviest packages."""
    return sorted(packages, key=lambda name: -packages[name])[:count]


def import_time_s() -> float:
    """Median time of `import edgeexit` in fresh interpreters, their own start apart."""
    code = "import time; t = time.perf_counter(); import edgeexit; print(time.perf_counter() - t)"
    took = [
        float(
            subprocess.run(
                [python(), "-c", code], env=environment(), stdout=subprocess.PIPE, check=True
            ).stdout
        )
        for _ in range(IMPORTS)
    ]
    return median(took)


def noise_folder() -> Path:
    """Images of noise, of the size of a small camera's."""
    folder = FOLDER / "images"
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(5)
    for index in range(IMAGES):
        pixels = noise.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=90)
    return folder


def run_daemon(bundle: Path, images: Path, state: Path) -> Start:
    """Start the daemon as its unit does, let it answer some frames, and stop it."""
    config, results = FOLDER / "config.toml", FOLDER / "results.jsonl"
    results.unlink(missing_ok=True)
    config.write_text(
        f'bundle = "{bundle}"\nboard = "generic-linux"\nstate = "{state}"\n'
        f'[source]\nkind = "directory"\npath = "{images}"\nloop = true\n'
        f'[budget]\nlatency_ms = 1000.0\n[results]\npath = "{results}"\n',
        encoding="utf-8",
    )
    # The daemon stamps its answers with the same clock, which is the system's, not the process's.
    began_ms = time.monotonic_ns() / 1e6
    process = subprocess.Popen(
        [python(), "-m", "edgeexit.device", "--config", config], env=environment(), stderr=subprocess.DEVNULL
    )
    try:
        wait_for_answers(process, results)
        rss_mb, peak_mb = memory_mb(process.pid)
        process.terminate()
        if process.wait(PATIENCE_S) != 0:
            raise SystemExit("the daemon did not end in order")
    finally:
        process.kill()
        process.wait()
    records = list(read_records(results))
    started = next(record for record in records if isinstance(record, RunStarted))
    first = next(record for record in records if isinstance(record, Answer))
    return Start(
        first_answer_s=round((first.captured_ms + first.latency_ms - began_ms) / 1000.0, 3),
        rss_mb=rss_mb,
        rss_peak_mb=peak_mb,
        stages_ms=sum(started.stage_ms),
        variants=started.variants,
    )


def wait_for_answers(process: subprocess.Popen[bytes], results: Path) -> None:
    """Wait until there are enough."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s and process.poll() is None:
        time.sleep(0.2)
        if not results.exists():
            continue
        answered = sum(isinstance(record, Answer) for record in read_records(results))
        if answered >= FRAMES:
            return
    raise SystemExit("the daemon did not answer")


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory now, and its peak."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+([0-9]+) kB$", status, re.MULTILINE))
    return float(found["VmRSS"]) * 1024 / 1e6, float(found["VmHWM"]) * 1024 / 1e6


if __name__ == "__main__":
    main()
