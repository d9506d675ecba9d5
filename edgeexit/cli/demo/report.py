"""The demo's report: what the device wrote, and what fixed policies would have made of the same run."""

from __future__ import annotations

from pathlib import Path

from edgeexit.bundle.store import Bundle
from edgeexit.cli.demo.plan import Folders
from edgeexit.cli.demo.steps import Run
from edgeexit.decide.answer import Answer, Record
from edgeexit.device.records import RunStarted, read_records
from edgeexit.errors import DataError
from edgeexit.replay.frames import RunFigures, RunRows, rows_of_records
from edgeexit.replay.outages import Outage, OutageKind
from edgeexit.replay.record import labelled_images, read_truth, record
from edgeexit.replay.recorded_run import (
    RunSetting,
    gateway_stage_times,
    replay_fixed_policies,
    seen_deadlines,
)
from edgeexit.replay.recording import Recording
from edgeexit.replay.run_report import RunAbout, write_run_report
from edgeexit.replay.traces import read_trace
from edgeexit.runner.selection import monotonic_ms, open_verified

# A killed gateway's connection breaks at once, and its will tells everybody.
WILL_MS = 50.0
# Broker, process and interpreter hand-overs of an exchange over an idle link.
HAND_OVER_MS = 2.0


def write_report(folder: Path, bundle: Bundle, folders: Folders, run: Run) -> RunFigures:
    """Write report.json and report.html for a run; gives the run's own figures."""
    everything = list(read_records(run.results))
    started = next((each for each in everything if isinstance(each, RunStarted)), None)
    if started is None:
        raise DataError(
            "the run left no beginning",
            file=str(run.results),
            why="the device ended before it wrote its first record",
            fix="look at the end of device.log beside it, then run the demo again",
        )
    records: list[Record] = [each for each in everything if isinstance(each, Record)]
    truth = read_truth(folders.images, bundle.manifest.labels)
    rows = rows_of_records(started.policy, records, truth)
    sources = {each.source for each in records if not hasattr(each, "boundary")}
    recording = _record(bundle, folders, {name: truth[name] for name in sorted(sources & truth.keys())})
    return write_run_report(
        folder,
        rows,
        about=RunAbout(
            title="edgeexit demo",
            bundle=started.bundle_digest,
            board=_board(started),
            network=bundle.manifest.provenance.network,
            policy=started.policy,
            stage_count=bundle.manifest.stage_count,
            remarks=(*_remarks(started), _link(run)),
        ),
        baselines=_baselines(records, recording, started, run),
        marks=(run.link_cut, run.gateway_gone),
    )


def _record(bundle: Bundle, folders: Folders, truth: dict[str, float]) -> Recording:
    runner, _ = open_verified(bundle)
    images = labelled_images(folders.images, truth)
    recording = record(
        bundle, images, runner, data="the demo's test images", clock=monotonic_ms, codecs=("u8",)
    )
    runner.close()
    return recording


def _baselines(
    records: list[Record], recording: Recording, started: RunStarted, run: Run
) -> dict[str, RunRows]:
    cut, gone = run.link_cut, run.gateway_gone
    setting = RunSetting(
        stage_ms=started.stage_ms,
        gateway_stage_ms=gateway_stage_times(records, started.stage_ms),
        deadlines=seen_deadlines(records),
        uplink=read_trace(run.trace),
        rtt_ms=2.0 * run.link.delay_ms + HAND_OVER_MS,
        link_origin_ms=run.link_origin_ms,
        outages=(
            Outage(cut.start_ms, cut.end_ms, OutageKind.LINK),
            Outage(gone.start_ms, _back_again_ms(records, gone.end_ms), OutageKind.GATEWAY, WILL_MS),
        ),
    )
    return replay_fixed_policies(records, recording, setting)


def _back_again_ms(records: list[Record], restarted_ms: float) -> float:
    """When the restarted gateway was first seen again by the device; it takes a while to start."""
    seen = (
        each.captured_ms
        for each in records
        if isinstance(each, Answer) and each.link_up and each.captured_ms > restarted_ms
    )
    return min(seen, default=restarted_ms)


def _board(started: RunStarted) -> str:
    if started.played_board is None:
        return started.board
    return f"{started.board}, playing {started.played_board}: {started.slowdown:g} times slower"


def _remarks(started: RunStarted) -> tuple[str, ...]:
    if started.played_board is None:
        return ()
    return (
        f"This is no measurement of a {started.played_board}: stage times of this machine were stretched "
        f"by the factor {started.slowdown:g} of its profile; the gateway ran at full speed.",
        "The baselines are replayed: the same frames, budgets and link, with recorded answers and the "
        "stage times measured at the start of the run.",
    )


def _link(run: Run) -> str:
    trace = read_trace(run.trace)
    return (
        f"The link carried {trace.mean_bps / 1e6:.2f} Mbit/s on average, {run.link.delay_ms:.1f} ms one way; "
        "bandwidth followed a trace, in both directions."
    )
