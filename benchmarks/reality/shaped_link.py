"""The shaped link between the two namespaces, and the socket by which it is told what to be."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.reality.namespaces import Namespaces
from benchmarks.reality.shaper import Request, Stats
from benchmarks.reality.shaping import Shape
from edgeexit.cli.demo.programs import Program
from edgeexit.errors import DeviceError

ROOT = Path(__file__).parent.parent.parent
# The shaper answers within its heartbeat; this only bounds one that hangs.
ANSWER_S = 10.0
ANSWER_CAP_BYTES = 4096


class ShapedLink:
    """The shaper's process and its two interfaces, gone with their context."""

    def __init__(self, namespaces: Namespaces, *, log: Path) -> None:
        self._namespaces = namespaces
        self._log = log
        self._parts = ExitStack()
        self._socket: socket.socket | None = None
        self._held = b""

    def __enter__(self) -> ShapedLink:
        try:
            self._open()
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def begin(self, shape: Shape) -> Stats:
        """Be a new link of this shape from now on, with nothing in flight."""
        return self._ask(Request(ask="begin", shape=shape))

    def cut(self) -> Stats:
        """Let nothing through any more, silently."""
        return self._ask(Request(ask="cut"))

    def restore(self) -> Stats:
        """Let packets through again."""
        return self._ask(Request(ask="restore"))

    def stats(self) -> Stats:
        """How it went since the link began."""
        return self._ask(Request(ask="stats"))

    def _open(self) -> None:
        folder = self._parts.enter_context(tempfile.TemporaryDirectory(prefix="edgeexit-check-"))
        path = f"{folder}/shaper.socket"
        # Interface names have few letters; the process number keeps two checks on one machine apart.
        names = (f"eed{os.getpid()}", f"eeg{os.getpid()}")
        words = (sys.executable, "-m", "benchmarks.reality.shaper", *names, path)
        shaper = Program("the shaper", at_root(words), log=self._log, talks=True)
        shaper = self._parts.enter_context(shaper)
        shaper.read_line()
        self._namespaces.join(*names)
        self._socket = self._parts.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._socket.settimeout(ANSWER_S)
        self._socket.connect(path)

    def _ask(self, request: Request) -> Stats:
        """Raises: DeviceError when the shaper refuses, or is gone."""
        if self._socket is None:
            raise DeviceError("the shaper was not started")
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
            while b"\n" not in self._held:
                fresh = self._socket.recv(ANSWER_CAP_BYTES)
                if not fresh or len(self._held) > ANSWER_CAP_BYTES:
                    raise DeviceError("the shaper is gone", why="it ended", fix=f"see {self._log}")
                self._held += fresh
        except OSError as error:
            raise DeviceError("the shaper is gone", why=str(error), fix=f"see {self._log}") from error
        line, _, self._held = self._held.partition(b"\n")
        stats = msgspec.json.decode(line, type=Stats)
        if stats.error is not None:
            raise DeviceError("the shaper refuses", why=stats.error)
        return stats


def at_root(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command line that runs `words` in the checkout, where `benchmarks` is found."""
    return ("/bin/sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(ROOT), *words)
