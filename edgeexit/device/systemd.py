"""Telling systemd how we are: sd_notify, without its library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends states to the service manager; says nothing where there is none.

    Source: sd_notify(3), sd_watchdog_enabled(3).
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of Linux's abstract socket names.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_ms = _watchdog_ms(environment)
        """Half the time after which systemd takes silence for a hang; None where it does not watch."""

    def send(self, *states: str) -> None:
        """Send `KEY=value` states in one message; a manager that cannot be reached is not our trouble."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)  # a manager that does not read must not stop the loop
                channel.sendto("\n".join(states).encode(), self._address)
        except OSError:
            return


def _watchdog_ms(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get("WATCHDOG_USEC", "")
    watched = environment.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0:
        return None
    if watched and watched != str(os.getpid()):
        return None
    return int(microseconds) / 1000.0 / 2.0
