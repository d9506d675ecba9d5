"""Which machine measurements hold for."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# A model name is a line of text; /proc/cpuinfo of 256 cores is about 400 kB, its first core's part 2 kB.
_READ_BYTES = 4096


def machine_name(root: Path = Path("/")) -> str:
    """Architecture, cores and model, as far as the system says: enough to tell a Pi 4 from a Pi 5.

    A card that moves to another board thereby leaves its measurements behind.
    Source: devicetree specification, property `model` of the root node; Linux `show_cpuinfo` for x86.
    """
    model = _text(root / "proc/device-tree/model").strip("\0\n ")
    if not model:
        lines = _text(root / "proc/cpuinfo").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else ""
    return " ".join(part for part in (platform.machine(), str(os.cpu_count() or ""), model) if part)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
