"""`edgeexit simulate --drift`: how long the watch over early exits takes to notice a changed world."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgeexit.cli.bar import Bar
from edgeexit.cli.present import show_json
from edgeexit.replay.drift import DriftFigures, DriftTerms, replay_drift
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import GridRow


def show_drift(
    rows: Sequence[GridRow],
    recording: Recording,
    terms: DriftTerms,
    *,
    seeds: Sequence[int],
    as_json: bool,
) -> None:
    """Replay every row with every seed and show what was noticed. Raises: ConfigError."""
    figures: list[DriftFigures] = []
    names: list[str] = []
    with Bar("drifting", len(rows) * len(seeds)) as bar:
        for row in rows:
            for seed in seeds:
                figures.append(replay_drift(row.scenario, recording, terms, seed))
                names.append(row.scenario.uplink.name)
                bar.show(len(figures), len(rows) * len(seeds))
    if as_json:
        show_json(msgspec.json.encode(figures))
    else:
        _show(names, figures, terms)


def _show(traces: Sequence[str], figures: Sequence[DriftFigures], terms: DriftTerms) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=(
            f"early exits of {terms.share:.0%} of the samples drift half-way; promised: at most "
            f"{terms.epsilon:g} not as the last exit, {terms.audit_fraction:g} of the frames audited"
        )
    )
    table.add_column("trace", no_wrap=True)
    for name in ("noticed", "audits", "state", "before", "unseen", "after"):
        table.add_column(name, justify="right", no_wrap=True)
    for trace, run in zip(traces, figures, strict=True):
        table.add_row(
            trace,
            "not" if run.noticed_after is None else f"{run.noticed_after:,}",
            f"{run.disagreements} of {run.audits}",
            run.state,
            *(
                "–" if share is None else f"{share:.1%}"
                for share in (run.differing_before, run.differing_unnoticed, run.differing_after)
            ),
        )
    console = Console()
    console.print(table)
    console.print(
        "noticed: frames from the drift on; audits: how many differed; before, unseen (until noticed), "
        "after (with tighter thresholds): answers that are not the last exit's"
    )
