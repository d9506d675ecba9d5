"""How every benchmark tells its result: one JSON file, and the same object as the last line printed."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

RESULTS = Path(__file__).with_name("results")

# The packages whose versions decide what a benchmark measures.
MEASURED_PACKAGES = ("edgeexit", "numpy", "ai-edge-litert", "paho-mqtt", "torch", "litert-torch")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a figure was taken. Units: load_1min, runnable tasks averaged over a minute."""

    processor: str
    cores: int
    load_1min: float | None
    system: str
    python: str
    packages: tuple[str, ...]


def environment() -> Environment:
    """This machine, now."""
    return Environment(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load_1min=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=tuple(_packages()),
    )


def publish(name: str, result: object) -> None:
    """Write `benchmarks/results/NAME.json` and print the same object on one last line.

    `result` is a msgspec Struct or a dataclass; `benchmark` and `environment` are added to its fields.
    """
    fields = msgspec.to_builtins(result)
    if not isinstance(fields, dict):
        raise TypeError(f"the result of {name} is not a record")
    whole = {"benchmark": name, **fields, "environment": msgspec.to_builtins(environment())}
    encoded = msgspec.json.encode(whole)
    RESULTS.mkdir(exist_ok=True)
    part = RESULTS / f"{name}.json.part"
    part.write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    part.replace(RESULTS / f"{name}.json")
    sys.stdout.write(encoded.decode() + "\n")
    sys.stdout.flush()


def _processor() -> str:
    """The processor's name; Linux tells it only here, `platform.processor()` is often empty."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _packages() -> list[str]:
    return [f"{name} {found}" for name in MEASURED_PACKAGES if (found := _version(name)) is not None]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
