"""The demo's way: data and training, conversion, flashing, serving under faults."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from edgeexit.bundle.store import Bundle, open_bundle
from edgeexit.cli.demo.link import Link, link_for, write_link
from edgeexit.cli.demo.live import Screen, Tail, Tally
from edgeexit.cli.demo.plan import Fault, Folders, Timing
from edgeexit.cli.demo.programs import Program, edgeexit_words
from edgeexit.cli.flash import board_files, sentence
from edgeexit.deploy import layout
from edgeexit.deploy.board import FolderBoard
from edgeexit.deploy.flash import flash
from edgeexit.device.config import DeviceConfig, PlayConfig, SourceConfig
from edgeexit.device.parts import find_profile, make_runner, played_board
from edgeexit.errors import ConfigError, DataError
from edgeexit.replay.plots_run import Mark
from edgeexit.transport.broker import Broker

Say = Callable[[str], None]

# The gateway of the demo; its id is part of topics.
GATEWAY = "attic"
DEVICE = "porch"
# How often the terminal is brought up to date and faults are looked at.
LOOK_S = 0.1
# Starting Python, the runtime and the broker connection on two loaded cores.
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """The recipe that makes the demo's bundle, and how it is called."""

    script: Path
    arguments: tuple[str, ...]


def make_bundle(recipe: Recipe, folders: Folders, *, image_count: int, quiet: bool) -> Bundle:
    """Run the recipe: data, training, conversion. What is finished already is not done again.

    `quiet` leaves standard output alone: what the recipe says goes to standard error.
    """
    if not recipe.script.exists():
        raise ConfigError(
            f"{recipe.script} is not there",
            key="recipe",
            why="the demo trains and converts by a recipe of the checkout",
            fix="run it in a checkout of edgeexit, or pass --recipe",
        )
    words = [
        sys.executable,
        str(recipe.script),
        *("--out", str(folders.bundle), "--work", str(folders.work)),
        *("--images", str(folders.images), "--image-count", str(image_count)),
        *recipe.arguments,
    ]
    done = subprocess.run(words, stdout=sys.stderr if quiet else None, check=False)
    if done.returncode != 0:
        raise DataError(
            f"{recipe.script.name} failed",
            file=str(recipe.script),
            why=f"exit code {done.returncode}",
            fix="what it said stands above; run the demo again when that is mended: finished steps are kept",
        )
    return open_bundle(folders.bundle)


def time_board(bundle: Bundle, board: str | None, folders: Folders, seconds: float) -> Timing:
    """Measure all stages as the device will, on the board that it plays."""
    play = PlayConfig(board=board)
    config = DeviceConfig(source=SourceConfig(kind="directory", path=str(folders.images)), play=play)
    runner, stage_ms = make_runner(config, bundle, find_profile(None), played_board(play), {})
    runner.close()
    return Timing(seconds=seconds, full_local_ms=sum(stage_ms))


def flash_board(bundle: Bundle, folders: Folders, config: Path, say: Say) -> None:
    """Flash the folder that is the board; then once more, to see that nothing is done twice."""
    files = board_files(config)
    for _ in range(2):
        say(sentence(flash(bundle, FolderBoard(folders.board), files=files)))


def write_config(folders: Folders, timing: Timing, *, broker_port: int, board: str | None) -> Path:
    """The device's configuration for this run."""
    tables: dict[str, object] = {
        "device": DEVICE,
        "bundle": str(folders.board / layout.CURRENT.lstrip("/")),
        "state": str(folders.run),
        "source": {
            "kind": "directory",
            "path": str(folders.images),
            "frame_rate_hz": 1000.0 / timing.period_ms,
            "loop": True,
        },
        "budget": {
            "kind": "schedule",
            "period_ms": timing.budget_period_ms,
            "steps": [{"start_ms": start, "latency_ms": ms} for start, ms in timing.budgets],
        },
        "broker": {"url": f"mqtt://127.0.0.1:{broker_port}"},
        "results": {"path": str(folders.run / "results.jsonl")},
    }
    if board is not None:
        tables["play"] = {"board": board}
    path = folders.run / "device.toml"
    path.write_bytes(msgspec.toml.encode(tables))
    return path


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left behind. Units: link_origin_ms and marks on the monotonic clock of all processes."""

    results: Path
    trace: Path
    link: Link
    link_origin_ms: float
    link_cut: Mark
    gateway_gone: Mark


def serve(
    bundle: Bundle,
    folders: Folders,
    timing: Timing,
    *,
    board: str | None,
    link: Path | None,
    say: Say,
    console: Console,
) -> Run:
    """Broker, shaped link, gateway and device, each a process; frames, faults; the results file."""
    run = folders.run
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    store = folders.store / bundle.short_digest
    if not store.exists():
        shutil.rmtree(folders.store, ignore_errors=True)
        shutil.copytree(bundle.path, store)
    trace, results = run / "link.trace", run / "results.jsonl"
    image = min(codec.payload_bytes for codec in bundle.manifest.boundaries[0].codecs)
    shape = link_for(timing.full_local_ms, image)
    if link is None:
        write_link(trace, shape, seconds=timing.seconds, seed=1)
    else:
        shutil.copyfile(link, trace)
    with ExitStack() as parts:
        broker = parts.enter_context(Broker())
        say(f"serve      broker {broker.kind} on port {broker.port}")
        say(f"link       {shape.median_mbps:.2f} Mbit/s in the median, {shape.delay_ms:.1f} ms one way")
        shaper_words = (sys.executable, "-m", "edgeexit.cli.demo.shaper", str(trace), str(shape.delay_ms))
        shaper = parts.enter_context(
            Program("link", (*shaper_words, str(broker.port)), log=run / "link.log", talks=True)
        )
        link_port, link_origin_ms = shaper.read_line().split()
        config = write_config(folders, timing, broker_port=int(link_port), board=board)
        flash_board(bundle, folders, config, say)
        gateway_words = edgeexit_words(
            *("gateway", "--store", str(folders.store), "--id", GATEWAY),
            *("--broker", f"mqtt://127.0.0.1:{broker.port}", "--concurrency", "1"),
        )
        gateway = parts.enter_context(Program("gateway", gateway_words, log=run / "gateway.log"))
        on_board = folders.board / layout.CONFIG.lstrip("/")
        device_words = edgeexit_words("device", "--config", str(on_board))
        device = parts.enter_context(Program("device", device_words, log=run / "device.log"))
        stage = Stage(device, gateway, shaper)
        link_cut, gateway_gone = stage.play(Tail(results), timing, board, console)
    return Run(results, trace, shape, float(link_origin_ms), link_cut, gateway_gone)


class Stage:
    """The run itself: shows it, cuts the link and kills the gateway on the way, ends after its seconds."""

    def __init__(self, device: Program, gateway: Program, link: Program) -> None:
        self._device = device
        self._gateway = gateway
        self._link = link

    def play(self, tail: Tail, timing: Timing, board: str | None, console: Console) -> tuple[Mark, Mark]:
        """Play the whole run; when the link was cut, and when the gateway was gone."""
        where = "this machine" if board is None else f"playing {board}"
        title = f"edgeexit demo, {where}: all stages take {timing.full_local_ms:.0f} ms"
        tally = Tally()
        begin_s = self._first_answer(tail, tally)
        link_cut = gateway_gone = False
        with Screen(console, title, timing.seconds) as screen:
            while (elapsed_s := time.monotonic() - begin_s) < timing.seconds:
                if timing.outage.holds(elapsed_s) is not link_cut:
                    link_cut = not link_cut
                    self._link.tell("cut" if link_cut else "restore")
                if timing.gateway_gone.holds(elapsed_s) is not gateway_gone:
                    gateway_gone = not gateway_gone
                    self._gateway.kill() if gateway_gone else self._gateway.start()
                events = "link cut" if link_cut else "gateway killed" if gateway_gone else ""
                screen.show(tally, elapsed_s, events)
                time.sleep(LOOK_S)
                self._device.check()
                for record in tail.fresh():
                    tally.take(record)
        return (
            _mark(timing.outage, begin_s, "link cut"),
            _mark(timing.gateway_gone, begin_s, "gateway killed"),
        )

    def _first_answer(self, tail: Tail, tally: Tally) -> float:
        """Wait for the device to be up; when it was, on the monotonic clock in seconds."""
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            self._device.check()
            for record in tail.fresh():
                tally.take(record)
            if tally.answered:
                return time.monotonic()
            time.sleep(LOOK_S)
        raise DataError(
            "no answer came",
            file="device.log",
            why=f"waited {START_S:.0f} s",
            fix="look at the end of device.log and gateway.log in the demo's folder run",
        )


def _mark(fault: Fault, begin_s: float, label: str) -> Mark:
    return Mark((begin_s + fault.begin_s) * 1000.0, (begin_s + fault.end_s) * 1000.0, label)
