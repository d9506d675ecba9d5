"""The demo's programs, each a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edgeexit.errors import DeviceError

# A daemon ends within two seconds of its signal; a loaded machine may need longer to schedule it.
STOP_S = 10.0


class Program:
    """A child process, ended with its context; what it says goes to a log file.

    With `talks`, its standard output is read here, line by line.
    """

    def __init__(self, name: str, words: Sequence[str], *, log: Path, talks: bool = False) -> None:
        self.name = name
        self._talks = talks
        self._words = words
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Program:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; its standard input stays open."""
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self._talks else log,
                stderr=log,
                text=True,
            )

    def read_line(self) -> str:
        """Its next line of output. Raises: DeviceError when it ended instead."""
        process = self._running()
        line = process.stdout.readline().strip() if process.stdout is not None else ""
        if not line:
            raise DeviceError(f"{self.name} did not start", why=self._last_words(), fix=f"see {self._log}")
        return line

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        process = self._running()
        if process.stdin is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._running().poll()

    def kill(self) -> None:
        """End it without warning, as a power cut does."""
        process = self._running()
        process.kill()
        process.wait()
        self._close_pipes(process)

    def stop(self) -> None:
        """End it in order: a signal, then patience."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._close_pipes(process)

    def check(self) -> None:
        """Raises: DeviceError when it ended by itself with a failure."""
        code = self.exit_code()
        if code not in (None, 0):
            raise DeviceError(
                f"{self.name} ended with {code}", why=self._last_words(), fix=f"see {self._log}"
            )

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise DeviceError(
                f"{self.name} was not started", why="it is not entered yet", fix="use it in a with statement"
            )
        return self._process

    def _last_words(self) -> str | None:
        with contextlib.suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            return lines[-1] if lines else None
        return None

    @staticmethod
    def _close_pipes(process: subprocess.Popen[str]) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def edgeexit_words(*words: str) -> list[str]:
    """The command line that runs this same installation's `edgeexit`."""
    return [sys.executable, "-c", "from edgeexit.cli.main import main; main()", *words]
