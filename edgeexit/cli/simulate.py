"""`edgeexit simulate`: policies on recorded answers over recorded networks, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json
from edgeexit.decide.drift import AUDIT_FRACTION
from edgeexit.errors import MissingExtra

if TYPE_CHECKING:
    from edgeexit.replay.study_figures import RowFigures


@command
def simulate(
    recording: Annotated[Path, typer.Argument(help="A file made by edgeexit record.")],
    traces: Annotated[
        Path,
        typer.Option(help="Folder of network traces, or one: mahimahi, pensieve or sabre, told by content."),
    ],
    policy: Annotated[
        list[str] | None, typer.Option(help="Policy to compare; may be repeated; all without.")
    ] = None,
    seed: Annotated[int, typer.Option(help="First seed of chance.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every scenario, a seed each.")] = 1,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a run.")] = 500,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Length of a run, instead of frames.")
    ] = None,
    board: Annotated[
        str, typer.Option(help="Board to play; `this` is the machine that recorded.")
    ] = "raspberry-pi-4",
    costs: Annotated[
        str,
        typer.Option(help="`recorded` stage times, or `vit-tiny`: published times of that network."),
    ] = "recorded",
    deadlines: Annotated[
        str,
        typer.Option(
            help="Budgets relative to the whole network's time here: all, wide, tight, middle, loose, sine, …"
        ),
    ] = "all",
    deadline_ms: Annotated[
        str | None, typer.Option(help="Budgets instead, such as 60,100,150; drawn in turn.")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Factor on rates of downlink traces, to stand for an uplink.")
    ] = 0.333,
    contention: Annotated[str, typer.Option(help="Load beside: none, x1.8, x3, thermal.")] = "none",
    outages: Annotated[
        str, typer.Option(help="What fails: none, each-minute, black-hole, gateway-dead.")
    ] = "none",
    round_trip: Annotated[
        str | None,
        typer.Option(
            help="Round trips: wifi-edge, wifi-edge-crowded, wifi-cloud, lte-edge, lte-cloud as measured, or "
            "a constant in ms; by the words of a trace's path without."
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="Devices that share the gateways, --frames each.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Gateway workers that devices share.")] = 1,
    queue: Annotated[
        str, typer.Option(help="Which request is served first: earliest-deadline, first-come.")
    ] = "earliest-deadline",
    byte_price: Annotated[float, typer.Option(min=0.0, help="Quality that one uplink byte must buy.")] = 0.0,
    bytes_per_s: Annotated[
        float | None,
        typer.Option(help="Long-run budget of payload bytes, kept by a price that rises and falls."),
    ] = None,
    power_mw: Annotated[
        float | None,
        typer.Option(help="Long-run budget of energy, kept by a price of computing and of sending."),
    ] = None,
    board_mw: Annotated[
        float | None, typer.Option(help="With --power-mw: the board's power, at which stages are counted.")
    ] = None,
    sending_mj_per_byte: Annotated[
        float | None, typer.Option(help="With --power-mw: what the radio takes to send a byte.")
    ] = None,
    drift: Annotated[
        float | None,
        typer.Option(help="Share of samples whose early exits turn wrong half-way; shows what notices it."),
    ] = None,
    epsilon: Annotated[
        float, typer.Option(help="With --drift: share of early answers that may not be the last exit's.")
    ] = 0.05,
    audit_fraction: Annotated[
        float, typer.Option(help="With --drift: share of frames that are audited.")
    ] = AUDIT_FRACTION,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("build/simulate"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Replay policies over every trace of a folder, beside oracles that know what comes."""
    import msgspec

    from edgeexit.cli.bar import Bar
    from edgeexit.cli.grid import GridWords, chosen_policies, energy_of, grid_of, numbers_of, share_of
    from edgeexit.replay.recording import load_recording
    from edgeexit.replay.showcase import most_telling, showcase, strongest
    from edgeexit.replay.study import run_study
    from edgeexit.replay.study_report import write_study_report

    policies = chosen_policies(policy or [])
    loaded = load_recording(recording)
    words = GridWords(
        traces=traces,
        scale=scale,
        board=board,
        costs=costs,
        deadlines=deadlines,
        deadlines_ms=numbers_of(deadline_ms, key="deadline-ms"),
        contention=contention,
        outages=outages,
        frames=frames,
        seconds=seconds,
        byte_price=byte_price,
        round_trip=round_trip,
        devices=devices,
        workers=workers,
        queue=queue,
        bytes_per_s=bytes_per_s,
        energy=energy_of(power_mw, board_mw=board_mw, sending_mj_per_byte=sending_mj_per_byte),
    )
    rows = grid_of(words, loaded)
    if drift is not None:
        from edgeexit.cli.drift import show_drift
        from edgeexit.replay.drift import DriftTerms

        terms = DriftTerms(
            share_of(drift, key="drift"),
            epsilon=share_of(epsilon, key="epsilon"),
            audit_fraction=share_of(audit_fraction, key="audit-fraction"),
        )
        show_drift(rows, loaded, terms, seeds=range(seed, seed + seeds), as_json=as_json)
        return
    out.mkdir(parents=True, exist_ok=True)
    with Bar("replaying", len(rows)) as bar:
        figures = run_study(
            rows,
            loaded,
            seeds=range(seed, seed + seeds),
            policies=policies,
            hindsight=not policy,
            progress=lambda done, total, _: bar.show(done, total),
        )
    shown = showcase(rows[most_telling(figures)], loaded, seed=seed, names=strongest(figures))
    try:
        write_study_report(
            out,
            figures,
            title="edgeexit simulate",
            subtitle=f"{loaded.note.name} on {board}, {loaded.sample_count:,} samples of {loaded.note.data}",
            shown=shown,
            remarks=(
                f"Rates of traces that are no uplinks by name were multiplied by {scale:g}, an assumption.",
                f"Seeds {seed} to {seed + seeds - 1}.",
            ),
        )
        written = "report.html and report.json"
    except MissingExtra as missing:  # the figures are there all the same
        typer.echo(f"no report.html: {missing}; {missing.fix}", err=True)
        written = "report.json"
    if as_json:
        show_json(msgspec.json.encode(figures))
    else:
        _show(figures)
        typer.echo(f"in {out}: {written}")


def _show(figures: list[RowFigures]) -> None:
    """Two tables: every policy over all scenarios, every scenario with the policy that ships."""
    from rich.console import Console
    from rich.table import Table

    from edgeexit.replay.contenders import OWN

    console = Console()
    by_policy = Table(title=f"policies, means over {len(figures)} scenarios")
    by_policy.add_column("policy", no_wrap=True)
    for name in ("right in time", "on time", "remote", "kB/frame"):
        by_policy.add_column(name, justify="right")
    for name in figures[0].policies:
        runs = [row.policies[name] for row in figures]
        count = len(runs)
        by_policy.add_row(
            name,
            f"{sum(run.correct_by_deadline for run in runs) / count:.4f}",
            f"{sum(run.on_time for run in runs) / count:.4f}",
            f"{sum(run.remote for run in runs) / count:.4f}",
            f"{sum(run.bytes_per_frame for run in runs) / count / 1000.0:.2f}",
        )
    console.print(by_policy)
    by_scenario = Table(title="scenarios; O1 knows every latency beforehand")
    by_scenario.add_column("trace", no_wrap=True)
    for name in ("alone", OWN, "O1", "gap closed"):
        by_scenario.add_column(name, justify="right")
    for row in figures:
        by_scenario.add_row(
            row.trace,
            f"{row.floor:.4f}",
            f"{row.policies[OWN].objective:.4f}",
            f"{row.oracle_latency:.4f}",
            "–" if row.gap_closed is None else f"{row.gap_closed:.2f}",
        )
    console.print(by_scenario)
