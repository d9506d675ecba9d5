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

from edgeexit.board.profile import read_profile
from edgeexit.bundle.store import Bundle, open_bundle
from edgeexit.cli.demo.link import DELAY_MS, write_link
from edgeexit.cli.demo.live import Screen, Tail, Tally
from edgeexit.cli.demo.plan import Folders, Timing
from edgeexit.cli.demo.programs import Program, edgeexit_words
from edgeexit.cli.flash import board_files, sentence
from edgeexit.deploy import layout
from edgeexit.deploy.board import FolderBoard
from edgeexit.deploy.flash import flash
from edgeexit.errors import ConfigError, DataError
from edgeexit.runner.selection import open_verified
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


def make_bundle(recipe: Recipe, folders: Folders, *, image_count: int) -> Bundle:
    """Run the recipe: data, training, conversion. What is finished already is not done again."""
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
    done = subprocess.run(words, check=False)
    if done.returncode != 0:
        raise DataError(
            f"{recipe.script.name} failed", file=str(recipe.script), why=f"exit code {done.returncode}"
        )
    return open_bundle(folders.bundle)


def time_board(bundle: Bundle, board: str | None, folders: Folders, seconds: float) -> Timing:
    """Measure all stages here, and stretch them to the board that is played."""
    runner, report = open_verified(bundle)
    runner.close()
    factor = 1.0
    if board is not None:
        slowdown = read_profile(board).slowdown
        if slowdown is None:
            raise ConfigError(f"{board} cannot be played", key="board", why="its profile gives no factor")
        factor = slowdown.factor
    return Timing(seconds=seconds, full_local_ms=factor * sum(report.median_ms))


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


def serve(
    bundle: Bundle, folders: Folders, timing: Timing, *, board: str | None, link: Path | None, say: Say
) -> Path:
    """Broker, shaped link, gateway and device, each a process; frames, faults; the results file."""
    run = folders.run
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    store = folders.store / bundle.short_digest
    if not store.exists():
        shutil.rmtree(folders.store, ignore_errors=True)
        shutil.copytree(bundle.path, store)
    trace = run / "link.trace"
    if link is None:
        write_link(trace, seconds=timing.seconds, seed=1)
    else:
        shutil.copyfile(link, trace)
    with ExitStack() as parts:
        broker = parts.enter_context(Broker())
        say(f"broker: {broker.kind}, port {broker.port}")
        shaper = parts.enter_context(
            Program(
                "link",
                [
                    *(sys.executable, "-m", "edgeexit.cli.demo.shaper"),
                    *(str(trace), str(DELAY_MS), str(broker.port)),
                ],
                log=run / "link.log",
                talks=True,
            )
        )
        link_port = int(shaper.read_line())
        config = write_config(folders, timing, broker_port=link_port, board=board)
        flash_board(bundle, folders, config, say)
        gateway = parts.enter_context(
            Program(
                "gateway",
                edgeexit_words(
                    *("gateway", "--store", str(folders.store), "--id", GATEWAY),
                    *("--broker", f"mqtt://127.0.0.1:{broker.port}", "--concurrency", "1"),
                ),
                log=run / "gateway.log",
            )
        )
        on_board = folders.board / layout.CONFIG.lstrip("/")
        device = parts.enter_context(
            Program("device", edgeexit_words("device", "--config", str(on_board)), log=run / "device.log")
        )
        results = run / "results.jsonl"
        _watch(device, gateway, shaper, Tail(results), timing, board)
    return results


def _watch(
    device: Program, gateway: Program, shaper: Program, tail: Tail, timing: Timing, board: str | None
) -> None:
    """Show the run, cut the link and kill the gateway on the way, and end it after its seconds."""
    where = "this machine" if board is None else f"playing {board}"
    title = f"edgeexit demo, {where}, all stages take {timing.full_local_ms:.0f} ms"
    tally, began_s = Tally(), None
    link_cut = gateway_gone = False
    waited_until_s = time.monotonic() + START_S
    with Screen(title, timing.seconds) as screen:
        while True:
            time.sleep(LOOK_S)
            device.check()
            for record in tail.fresh():
                tally.take(record)
            now_s = time.monotonic()
            if began_s is None:
                if tally.answered:
                    began_s = now_s
                elif now_s > waited_until_s:
                    raise DataError("no answer came", file="device.log", why=f"waited {START_S:.0f} s")
                continue
            elapsed_s = now_s - began_s
            if elapsed_s >= timing.seconds:
                return
            cut_now = timing.outage.begin_s <= elapsed_s < timing.outage.end_s
            if cut_now is not link_cut:
                shaper.tell("cut" if cut_now else "restore")
                link_cut = cut_now
            gone_now = timing.gateway_gone.begin_s <= elapsed_s < timing.gateway_gone.end_s
            if gone_now is not gateway_gone:
                gateway.kill() if gone_now else gateway.start()
                gateway_gone = gone_now
            events = "link cut" if link_cut else "gateway killed" if gateway_gone else ""
            screen.show(tally, elapsed_s, events)
