"""`edgeexit simulate`: policies on recorded answers over recorded networks, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json

if TYPE_CHECKING:
    from edgeexit.replay.study import RowFigures


@command
def simulate(
    recording: Annotated[Path, typer.Argument(help="A file made by edgeexit record.")],
    traces: Annotated[
        Path, typer.Option(help="Folder of network traces: mahimahi, pensieve or sabre, told by content.")
    ],
    policy: Annotated[
        list[str] | None, typer.Option(help="Policy to compare; may be repeated; all without.")
    ] = None,
    seed: Annotated[int, typer.Option(help="First seed of chance.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every scenario, a seed each.")] = 1,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Length of a run; 60 without.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a run, instead of seconds.")] = None,
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
            help="Budgets relative to the whole network's time here: all, tight, middle, loose, sine, …"
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
    byte_price: Annotated[float, typer.Option(min=0.0, help="Quality that one uplink byte must buy.")] = 0.0,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("build/simulate"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Replay policies over every trace of a folder, beside oracles that know what comes."""
    import msgspec

    from edgeexit.cli.bar import Bar
    from edgeexit.cli.grid import GridWords, chosen_policies, grid_of, parse_deadlines
    from edgeexit.replay.recording import load_recording
    from edgeexit.replay.study import run_study

    policies = chosen_policies(policy or [])
    loaded = load_recording(recording)
    rows = grid_of(
        GridWords(
            traces=traces,
            scale=scale,
            board=board,
            costs=costs,
            deadlines=deadlines,
            deadlines_ms=parse_deadlines(deadline_ms),
            contention=contention,
            outages=outages,
            frames=frames,
            seconds=seconds,
            byte_price=byte_price,
        ),
        loaded,
    )
    with Bar("replaying", len(rows)) as bar:
        figures = run_study(
            rows,
            loaded,
            seeds=range(seed, seed + seeds),
            policies=policies,
            hindsight=not policy,
            progress=lambda done, total, _: bar.show(done, total),
        )
    out.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.encode(figures)
    (out / "report.json").write_bytes(encoded + b"\n")
    if as_json:
        show_json(encoded)
    else:
        _show(figures)
        typer.echo(f"report: {out / 'report.json'}")


def _show(figures: list[RowFigures]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = list(figures[0].policies)
    table = Table(title="right by the deadline, less the price of bytes; O1 knows all latencies")
    table.add_column("scenario")
    for name in (*names, "O1"):
        table.add_column(name, justify="right")
    for row in figures:
        best = max(each.objective for each in row.policies.values())
        cells = [
            f"[bold]{each.objective:.3f}[/]" if each.objective == best else f"{each.objective:.3f}"
            for each in row.policies.values()
        ]
        table.add_row(row.scenario, *cells, f"{row.oracle_latency:.3f}")
    Console().print(table)
