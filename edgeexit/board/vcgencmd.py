"""Raspberry Pi firmware: what `vcgencmd get_throttled` says."""

from __future__ import annotations

import re
import shutil
import subprocess

from edgeexit.board.readings import ThrottleCause, Throttling

# Source: Raspberry Pi documentation, vcgencmd get_throttled: bits 0 to 3 are now, 16 to 19 since boot.
CAUSES: tuple[ThrottleCause, ...] = (
    "under-voltage",
    "frequency-capped",
    "throttled",
    "soft-temperature-limit",
)
SINCE_BOOT_SHIFT = 16
_LINE = re.compile(r"\Athrottled=0x([0-9a-fA-F]{1,8})\s*\Z")

# The firmware answers in milliseconds; a mailbox that hangs must not hold the sampling thread for long.
TIMEOUT_S = 1.0


def parse_throttled(text: str) -> Throttling | None:
    """The flags in the program's one line of output; None where it is anything else."""
    match = _LINE.match(text)
    if match is None:
        return None
    flags = int(match.group(1), 16)
    return Throttling(
        now=tuple(cause for bit, cause in enumerate(CAUSES) if flags >> bit & 1),
        since_boot=tuple(cause for bit, cause in enumerate(CAUSES) if flags >> (bit + SINCE_BOOT_SHIFT) & 1),
    )


def read_throttled(program: str = "vcgencmd") -> Throttling | None:
    """Ask the firmware; None where the program is absent, refuses or hangs."""
    found = shutil.which(program)
    if found is None:
        return None
    try:
        done = subprocess.run(
            [found, "get_throttled"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return parse_throttled(done.stdout)
