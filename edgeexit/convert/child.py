"""A tool run as a process of its own: its lines as they come, its last words, and an end by the clock."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# What a tool said last is what explains its failure; tracebacks of converters are about this long.
LAST_LINES = 20
# A line of a progress bar may go on without an end.
LONGEST_LINE = 400


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a process ended: `why` it failed, None where it did not, and its last lines."""

    why: str | None
    last_words: str


def run_child(
    command: Sequence[str],
    *,
    limit_s: float,
    tell: Callable[[str], None] = lambda line: None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> ChildEnd:
    """Run a command to its end, or kill it and all that it started once `limit_s` have passed.

    `tell` gets every line of its output and of its errors, from a thread. Units: limit_s, wall time.
    Raises: OSError where it cannot be started.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)

    def read(stream: IO[str]) -> None:
        # Universal newlines: a progress bar's carriage returns end lines too.
        for line in stream:
            text = line.strip()[:LONGEST_LINE]
            if text:
                last.append(text)
                tell(text)

    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=None if environment is None else dict(environment),
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # it was asked for
        reader = threading.Thread(target=read, args=(process.stdout,), daemon=True)
        reader.start()
        why = None
        try:
            code = process.wait(timeout=limit_s)
            if code != 0:
                why = f"it ended with {code}"
        except subprocess.TimeoutExpired:
            why = f"it took longer than {limit_s:.0f} s"
        finally:
            # What it started may outlive it, and would keep its output open.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        reader.join(timeout=5.0)
    return ChildEnd(why, "\n".join(last))
