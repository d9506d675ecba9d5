"""Reality check: the same scenario once for real and once in replay, compared.

    python -m benchmarks.reality_check [--seconds S] [--seed N] [--only NAME ...]

For real: the device daemon in a network namespace of its own; broker and gateway in another; between them
a shaper with the rates, delays and outages of the scenario; processor time through control groups. In
replay: the same frames, budgets, link and load, on costs measured apart. It needs root, `ip`, TUN devices
and a cpu controller; nothing of it leaves this machine, and everything is removed at the end.

Targets: every scenario `accepted` and `agrees`, else the exit status is 1. docs/reality_check.md, whose
table `python -m benchmarks.reality.page` makes of the result, explains what differs.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from benchmarks._random_vit import BUILD
from benchmarks.reality.compare import worst_points
from benchmarks.reality.house import BURNER_SHARE, BUSY_SHARE, House
from benchmarks.reality.namespaces import require_root
from benchmarks.reality.plan import NAMES, plans, rate_mbps
from benchmarks.reality.rows import (
    LATE_SHARE_BOUND,
    LATENESS_BOUND_MS,
    Row,
    Say,
    SubjectFigures,
    get_ready,
    rows,
    subject_figures,
)
from benchmarks.reality.subjects import Subject, subject_of
from benchmarks.results import publish
from edgeexit.errors import ConfigError, EdgeExitError

WORK = BUILD.parent / "reality_check"
# Three rounds of budgets.
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """`agrees_apart`: all figures agree on stage times measured around the runs, too.

    Units: points, hundredths of all frames, on time and right by the deadline.
    """

    agrees: bool
    agrees_apart: bool
    accepted: bool
    worst_difference_points: float
    scenarios: tuple[Row, ...]
    lateness_bound_ms: float
    late_share_bound: float
    subjects: dict[str, SubjectFigures]
    broker: str
    congestion_control: str | None
    shaper_priority: str
    contention: str
    seed: int


def main() -> None:
    """Run the check and publish."""
    parser = argparse.ArgumentParser(description="the same scenario for real and in replay")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="scenarios to run: steady mobile outage contention")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        result = check(seconds=options.seconds, seed=options.seed, only=options.only)
    except EdgeExitError as error:
        fix = "" if error.fix is None else f"\n  fix: {error.fix}"
        sys.exit(f"error: {error}{fix}")
    except KeyboardInterrupt:
        sys.exit("interrupted; everything was removed")
    publish("reality_check", result)
    sys.exit(0 if result.agrees and result.accepted else 1)


def check(*, seconds: float, seed: int, only: Sequence[str] | None) -> Result:
    """All scenarios. Raises: EdgeExitError, with the fix, where this machine cannot do it."""
    require_root()
    WORK.mkdir(parents=True, exist_ok=True)
    begun_s = time.monotonic()

    def say(part: str, what: str) -> None:
        print(f"{time.monotonic() - begun_s:5.0f} s  {part:<12} {what}", flush=True)

    subjects = _subjects(only, say)
    say("house", "namespaces, shaper, control groups, broker, gateway")
    with House(WORK, [each.bundle for each in subjects]) as house:
        done: list[Row] = []
        measured: dict[str, SubjectFigures] = {}
        for subject in subjects:
            ready = get_ready(house, subject, WORK, say)
            measured[subject.name] = subject_figures(ready)
            mbps = rate_mbps(subject.bundle, ready.pace)
            planned = plans(WORK, ready.pace, mbps=mbps, seconds=seconds, seed=seed)
            wanted = [plan for plan in planned if only is None or plan.name in only]
            done += rows(house, wanted, ready, WORK, say)
        return Result(
            agrees=all(row.agrees for row in done),
            agrees_apart=all(row.agrees_apart for row in done),
            accepted=all(row.accepted for row in done),
            worst_difference_points=max(worst_points(row.compared) for row in done),
            scenarios=tuple(done),
            lateness_bound_ms=LATENESS_BOUND_MS,
            late_share_bound=LATE_SHARE_BOUND,
            subjects=measured,
            broker=house.broker_kind,
            congestion_control=house.namespaces.congestion_control,
            shaper_priority=house.link.stats().priority,
            contention=f"{house.device_group.kind}, {BUSY_SHARE:g} of a core, a burner with {BURNER_SHARE:g}",
            seed=seed,
        )


def _subjects(only: Sequence[str] | None, say: Say) -> list[Subject]:
    """The subjects that the wanted scenarios need. Raises: ConfigError for a name that is none."""
    known = [name for names in NAMES.values() for name in names]
    for name in only or ():
        if name not in known:
            raise ConfigError(f"no scenario {name}", key="only", fix=f"known: {', '.join(known)}")
    subjects: list[Subject] = []
    for kind, names in NAMES.items():
        if only is None or set(only) & set(names):
            say("subject", f"bundle and images of the {kind.value} board")
            subjects.append(subject_of(kind, WORK))
    return subjects


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A signal to end is as good as Ctrl-C; everything is removed on the way out, and a second one waits."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
