"""Processor time as a control group grants it: how a busy board is made out of an idle machine.

A quota takes time away from every thread of the group, as other programs on a board would; shares keep
the rest of this machine from taking more. cgroup v1 (cpu.cfs_quota_us) and v2 (cpu.max).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

from edgeexit.errors import DeviceError

MOUNT = Path("/sys/fs/cgroup")
PREFIX = "edgeexit-check-"
# A quota that was not used is lost, so that work which begins after a pause gets the first of it at once: the
# shorter the period, the less that is, and the more evenly a stage is slowed down. The kernel takes stock in
# ticks of 4 ms; with a tenth of a second, its own default, short stages would hardly feel a limit.
PERIOD_US = 5_000
# The most that the kernel lets a group weigh: programs outside can hardly slow it down.
SHARES_V1, WEIGHT_V2 = 262_144, 10_000
# Processes that were killed need a moment to leave, on a loaded machine a long one.
LEAVE_S = 20.0


class ProcessorGroup:
    """A control group for processor time, removed with its context.

    What runs in it stays on `processor`, where one is given; without `preferred` it has no more weight than
    the programs outside.
    Raises: DeviceError, on entering, where there is no cpu controller or this user may not.
    """

    def __init__(
        self, name: str, *, processor: int | None = None, preferred: bool = True, mount: Path = MOUNT
    ) -> None:
        self._name = f"{PREFIX}{os.getpid()}-{name}"
        self._processor = processor
        self._preferred = preferred
        self._mount = mount
        self._v2 = False
        self._folder: Path | None = None

    def __enter__(self) -> ProcessorGroup:
        parent, self._v2 = _parent(self._mount)
        _remove_leftovers(parent)
        folder = parent / self._name
        try:
            if self._v2 and "cpu" not in _read(parent / "cgroup.subtree_control").split():
                _write(parent / "cgroup.subtree_control", "+cpu")
            folder.mkdir()
        except OSError as error:
            raise DeviceError(
                f"control group {folder} cannot be made",
                why=error.strerror,
                fix="run this as root, with /sys/fs/cgroup writable",
            ) from error
        self._folder = folder
        try:
            if self._preferred:
                name, most = ("cpu.weight", WEIGHT_V2) if self._v2 else ("cpu.shares", SHARES_V1)
                _write(folder / name, str(most))
            if not self._v2:
                _write(folder / "cpu.cfs_period_us", str(PERIOD_US))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    @property
    def kind(self) -> str:
        """Which kind of control group, for reports."""
        return "cgroup v2 cpu.max" if self._v2 else "cgroup v1 cpu.cfs_quota_us"

    def words(self, words: list[str]) -> list[str]:
        """The command line that runs `words` in this group from its first instruction on."""
        script = 'echo $$ > "$1" && shift && exec "$@"'
        pinned = [] if self._processor is None else ["taskset", "-c", str(self._processor)]
        return ["/bin/sh", "-c", script, "sh", str(self._made / "cgroup.procs"), *pinned, *words]

    def limit(self, share: float | None) -> None:
        """Grant this share of one core; None takes the limit away."""
        quota_us = None if share is None else max(1000, round(share * PERIOD_US))
        if self._v2:
            _write(self._made / "cpu.max", f"{'max' if quota_us is None else quota_us} {PERIOD_US}")
        else:
            _write(self._made / "cpu.cfs_quota_us", "-1" if quota_us is None else str(quota_us))

    @property
    def _made(self) -> Path:
        if self._folder is None:
            raise DeviceError(f"control group {self._name} was not made")
        return self._folder

    def _remove(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            _remove_when_empty(folder)


def _remove_when_empty(folder: Path) -> None:
    """Remove a group as soon as the processes in it have left; leave it where they do not in time."""
    until_s = time.monotonic() + LEAVE_S
    while folder.exists():
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        if time.monotonic() >= until_s:
            return
        time.sleep(0.05)


def _remove_leftovers(parent: Path) -> None:
    """Remove the groups of runs that were killed, and the processes that these left inside."""
    for folder in parent.glob(f"{PREFIX}*-*"):
        found = re.fullmatch(rf"{PREFIX}(\d+)-\w+", folder.name)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            for process in _read(folder / "cgroup.procs").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            _remove_when_empty(folder)


def _parent(mount: Path) -> tuple[Path, bool]:
    """Where groups for processor time are made, and whether that is version 2."""
    for old in (mount / "cpu", mount / "cpu,cpuacct"):
        if (old / "cpu.cfs_quota_us").exists() or (old / "cpu.shares").exists():
            return old, False
    for new in (mount, mount / "unified"):
        if "cpu" in _read(new / "cgroup.controllers").split():
            return new, True
    raise DeviceError(
        "processor time cannot be taken away here",
        why=f"there is no cpu controller below {mount}",
        fix="mount one: mount -t cgroup2 none /sys/fs/cgroup",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
