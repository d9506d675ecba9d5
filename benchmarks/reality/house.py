"""All that stands while the check runs: namespaces, the shaped link, control groups, broker and gateway."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.reality.contention import ProcessorGroup
from benchmarks.reality.measuring import Measured, Request
from benchmarks.reality.namespaces import GATEWAY_ADDRESS, Namespaces, inside
from benchmarks.reality.shaped_link import ShapedLink, at_root
from edgeexit.bundle.store import Bundle
from edgeexit.cli.demo.programs import Program, edgeexit_words
from edgeexit.errors import DeviceError

GATEWAY = "attic"
# Loading two bundles of ViT-Tiny size takes a few seconds; a loaded machine needs longer.
START_S = 60.0
LOOK_S = 0.1


class House:
    """Stands from entering the context until leaving it; `work` holds logs and stores, `bundles` are served.

    Raises: MissingProgram, DeviceError, with the fix, where this machine cannot do it.
    """

    def __init__(self, work: Path, bundles: Sequence[Bundle]) -> None:
        self._work = work
        self._bundles = bundles
        self._parts = ExitStack()
        self.namespaces = Namespaces()
        self.link = ShapedLink(self.namespaces, log=work / "shaper.log")
        self.device_group = ProcessorGroup("device")
        self._others = ProcessorGroup("others")
        self.broker_kind = ""
        self._broker_port = 0

    def __enter__(self) -> House:
        try:
            self._open()
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    @property
    def broker_url(self) -> str:
        """Where the device finds the broker, through the shaped link."""
        return f"mqtt://{GATEWAY_ADDRESS}:{self._broker_port}"

    def device(self, config: Path, log: Path) -> Program:
        """A device daemon in its namespace and control group, not started."""
        words = (sys.executable, "-m", "edgeexit.device", "--config", str(config))
        return Program("the device", self._in_device(words), log=log)

    def measure(self, request: Request) -> Measured:
        """Stage times, where and as the device runs. Raises: DeviceError."""
        words = (sys.executable, "-m", "benchmarks.reality.measuring", msgspec.json.encode(request).decode())
        log = self._work / "measuring.log"
        with Program("the measurement", self._in_device(words), log=log, talks=True) as program:
            return msgspec.json.decode(program.read_line(), type=Measured)

    def _open(self) -> None:
        enter = self._parts.enter_context
        # First in, last out: groups can only be removed when no process is left in them.
        enter(self.device_group)
        enter(self._others)
        enter(self.namespaces)
        enter(self.link)
        broker_words = (sys.executable, "-m", "benchmarks.reality.broker_here", GATEWAY_ADDRESS)
        broker = enter(
            Program("the broker", self._in_gateway(broker_words), log=self._work / "broker.log", talks=True)
        )
        self.broker_kind, port = broker.read_line().split()
        self._broker_port = int(port)
        store = self._work / "store"
        shutil.rmtree(store, ignore_errors=True)
        for bundle in self._bundles:
            shutil.copytree(bundle.path, store / bundle.short_digest)
        words = edgeexit_words(
            *("gateway", "--store", str(store), "--id", GATEWAY, "--broker", self.broker_url),
            *("--concurrency", "1", "--threads", "1"),
        )
        log = self._work / "gateway.log"
        log.unlink(missing_ok=True)
        gateway = enter(Program("the gateway", self._in_gateway(words), log=log))
        self._wait_ready(gateway, log)

    def _wait_ready(self, gateway: Program, log: Path) -> None:
        """Wait until the gateway has loaded its bundles."""
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            gateway.check()
            if log.exists() and '"ready"' in log.read_text(encoding="utf-8", errors="replace"):
                return
            time.sleep(LOOK_S)
        raise DeviceError("the gateway did not start", why=f"waited {START_S:.0f} s", fix=f"see {log}")

    def _in_device(self, words: tuple[str, ...]) -> list[str]:
        return self.device_group.words(inside(self.namespaces.device, at_root(words)))

    def _in_gateway(self, words: Sequence[str]) -> list[str]:
        return self._others.words(inside(self.namespaces.gateway, at_root(tuple(words))))
