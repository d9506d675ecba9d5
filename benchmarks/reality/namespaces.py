"""Two network namespaces of this machine, a device's and a gateway's, joined by nothing but the shaper.

Neither has a default route: what happens inside stays inside. Names carry the number of the process
that made them, so that what a killed run left behind is found and removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from edgeexit.errors import DeviceError, MissingProgram

PREFIX = "edgeexit-check-"
# Reserved for benchmarks of networks (RFC 2544): never anybody's real address.
DEVICE_ADDRESS, GATEWAY_ADDRESS = "198.18.0.1", "198.18.0.2"
MTU = 1500
# The kernel of a workstation may have BBR, which hides what a board with the usual cubic would show.
CONGESTION_CONTROL = "cubic"
# `ip` answers within milliseconds; this only bounds one that hangs.
IP_S = 20.0
# A process of ours that was told to end has this long.
END_S = 3.0


class Namespaces:
    """Both namespaces, from entering the context until leaving it, whatever happens in between."""

    def __init__(self) -> None:
        self._stem = f"{PREFIX}{os.getpid()}"
        self.device = f"{self._stem}-device"
        self.gateway = f"{self._stem}-gateway"
        self.congestion_control: str | None = None

    def __enter__(self) -> Namespaces:
        require_root()
        remove_leftovers()
        try:
            for name in (self.device, self.gateway):
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def join(self, device_tun: str, gateway_tun: str) -> None:
        """Move the shaper's two interfaces in, give them addresses, and set them up."""
        ends = (
            (self.device, device_tun, DEVICE_ADDRESS, GATEWAY_ADDRESS),
            (self.gateway, gateway_tun, GATEWAY_ADDRESS, DEVICE_ADDRESS),
        )
        chosen: set[str | None] = set()
        for namespace, tun, own, other in ends:
            ip("link", "set", tun, "netns", namespace)
            ip("-n", namespace, "address", "add", own, "peer", other, "dev", tun)
            ip("-n", namespace, "link", "set", tun, "mtu", str(MTU), "up")
            chosen.add(_choose_congestion_control(namespace, tun, own, other))
        self.congestion_control = CONGESTION_CONTROL if chosen == {CONGESTION_CONTROL} else None

    def _remove(self) -> None:
        for name in (self.device, self.gateway):
            _remove_namespace(name)


def inside(namespace: str, words: Sequence[str]) -> list[str]:
    """The command line that runs `words` in a namespace."""
    return [_ip_program(), "netns", "exec", namespace, *words]


def ip(*words: str) -> str:
    """Run `ip`; what it printed. Raises: MissingProgram, DeviceError."""
    done = subprocess.run([_ip_program(), *words], capture_output=True, text=True, timeout=IP_S, check=False)
    if done.returncode != 0:
        raise DeviceError(
            f"ip {' '.join(words)} failed",
            why=(done.stderr.strip() or f"exit code {done.returncode}"),
            fix="run this as root, on a kernel with network namespaces (CONFIG_NET_NS) and TUN (CONFIG_TUN)",
        )
    return done.stdout


def require_root() -> None:
    """Raises: DeviceError, MissingProgram when namespaces cannot be made by this user, here."""
    _ip_program()
    if os.geteuid() != 0:
        raise DeviceError(
            "network namespaces cannot be made",
            why="this user is not root",
            fix="run it with sudo, or as root in a container with NET_ADMIN and SYS_ADMIN",
        )


def remove_leftovers() -> None:
    """Remove the namespaces of runs that were killed."""
    listed = ip("netns", "list").splitlines()
    for name in (line.split()[0] for line in listed if line.startswith(PREFIX)):
        found = re.fullmatch(rf"{PREFIX}(\d+)-(?:device|gateway)", name)
        if found is not None and not Path(f"/proc/{found[1]}").exists():
            _remove_namespace(name)


def _choose_congestion_control(namespace: str, tun: str, own: str, other: str) -> str | None:
    """Let this link use the congestion control of a board; None where the kernel does not have it."""
    route = ("route", "replace", other, "dev", tun, "src", own, "congctl", CONGESTION_CONTROL)
    try:
        ip("-n", namespace, *route)
    except DeviceError:
        return None
    return CONGESTION_CONTROL


def _remove_namespace(name: str) -> None:
    """Take a namespace away, with every process in it: all of them are ours."""
    with contextlib.suppress(DeviceError, subprocess.TimeoutExpired):
        until_s = time.monotonic() + END_S
        how = signal.SIGTERM
        while pids := [int(pid) for pid in ip("netns", "pids", name).split()]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
            if time.monotonic() > until_s:
                if how is signal.SIGKILL:
                    break
                how, until_s = signal.SIGKILL, time.monotonic() + END_S
            time.sleep(0.05)
        ip("netns", "delete", name)


def _ip_program() -> str:
    found = shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise MissingProgram("ip", package="iproute2", needed_for="network namespaces")
    return found
