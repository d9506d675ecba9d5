"""All that stands while the check runs: namespaces, the shaped link, control groups, broker and gateway."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
# What a busy board leaves to the daemon, of one core, and what a burner beside it takes. Were it all the
# rest, two cores would leave nothing for shaper and broker while daemon, burner and gateway compute.
BUSY_SHARE = 0.4
BURNER_SHARE = 0.25
# A broker in the namespace in which this runs, until its input ends or a signal comes. It knows no passwords,
# but nobody outside the namespace can reach it.
BROKER = """
import signal, sys
from edgeexit.transport.broker import Broker
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with Broker(host=sys.argv[1], insecure=True) as broker:
    print(broker.kind, broker.port, flush=True)
    sys.stdin.read()
"""
# Takes processor time, and the caches with it.
BURNER = "words = bytes(4 * 2**20)\nwhile True: words.count(1)"


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
        processors = sorted(os.sched_getaffinity(0))
        first, last = (processors[0], processors[-1]) if len(processors) > 1 else (None, None)
        # A board and a gateway are two machines: kept apart, neither waits for the other's computing.
        self._others = ProcessorGroup("others", processor=last)
        self._burners = ProcessorGroup("burner", processor=first, preferred=False)
        self._burner: Program | None = None
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

    def device(self, config: Path, *, notes: Path, log: Path, run_on: bool = False) -> Program:
        """A device daemon in its namespace and control group, not started; it notes what its policy sees.

        One that shall `run_on` is stopped by its deadline timer alone.
        """
        words = (sys.executable, "-m", "benchmarks.reality.noting", "--notes", str(notes))
        words += (*(("--run-on",) if run_on else ()), "--config", str(config))
        return Program("the device", self._in_device(words), log=log)

    def make_busy(self) -> None:
        """Other programs want the board's processor: a quota for the daemon, a burner beside it."""
        self.device_group.limit(BUSY_SHARE)
        words = self._burners.words([sys.executable, "-c", BURNER])
        self._burner = Program("the burner", words, log=self._work / "burner.log")
        self._burner.start()

    def make_free(self) -> None:
        """The device has its processor to itself."""
        self.device_group.limit(None)
        burner, self._burner = self._burner, None
        if burner is not None:
            burner.stop()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """A busy board meanwhile."""
        self.make_busy()
        try:
            yield
        finally:
            self.make_free()

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
        enter(self._burners)
        self._burners.limit(BURNER_SHARE)
        self._parts.callback(self.make_free)
        enter(self.namespaces)
        enter(self.link)
        broker_words = (sys.executable, "-c", BROKER, GATEWAY_ADDRESS)
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
