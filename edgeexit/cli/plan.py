"""`edgeexit plan`: how many gateways a fleet of devices needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json
from edgeexit.errors import ConfigError

if TYPE_CHECKING:
    from edgeexit.replay.planner import Fleet, Load


@command
def plan(
    devices: Annotated[int, typer.Option(min=1, help="How many devices there will be.")],
    target_p99_ms: Annotated[
        float, typer.Option(help="What queue and service may take for 99 of 100 requests.")
    ],
    frames_per_s: Annotated[float | None, typer.Option(help="Frames a second of one device.")] = None,
    offload_fraction: Annotated[
        float | None, typer.Option(help="Share of frames that are offloaded, 0 to 1.")
    ] = None,
    service_ms: Annotated[
        str | None, typer.Option(help="Measured service times of a gateway, such as 4.1,4.3,9.0.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="A device's results file: what of the above is not given is from it.")
    ] = None,
    recording: Annotated[
        Path | None, typer.Option(help="A recording: the share offloaded is that of a replay over --traces.")
    ] = None,
    traces: Annotated[
        Path | None, typer.Option(help="Folder of network traces, or one, for --recording.")
    ] = None,
    board: Annotated[str, typer.Option(help="Board to play in that replay.")] = "raspberry-pi-4",
    costs: Annotated[
        str, typer.Option(help="Its stage times: `recorded`, or `vit-tiny`, published ones of that network.")
    ] = "recorded",
    workers: Annotated[int, typer.Option(min=1, help="Requests that one gateway serves at a time.")] = 1,
    one_queue: Annotated[
        bool, typer.Option("--one-queue", help="The first free worker serves, instead of each in turn.")
    ] = False,
    synchronised: Annotated[
        bool, typer.Option("--synchronised", help="All devices capture at the same moments.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of chance.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Find the fewest gateways whose replies come in time, for up to 100,000 devices."""
    import msgspec

    from edgeexit.cli.fleet import FleetWords, fleet_from
    from edgeexit.cli.grid import numbers_of
    from edgeexit.replay.planner import Dispatch, Gateways
    from edgeexit.replay.planner import plan as find

    if not 0.0 < target_p99_ms < float("inf"):
        raise ConfigError(
            f"a p99 of {target_p99_ms:g} ms is refused",
            key="target-p99-ms",
            why="queue and service take time: finite, and more than 0",
            fix="give --target-p99-ms milliseconds, such as 40",
        )
    fleet = fleet_from(
        FleetWords(
            devices=devices,
            frames_per_s=frames_per_s,
            offload_fraction=offload_fraction,
            service_ms=numbers_of(service_ms, key="service-ms"),
            results=results,
            recording=recording,
            traces=traces,
            board=board,
            costs=costs,
            synchronised=synchronised,
            seed=seed,
        )
    )
    gateways = Gateways(workers, Dispatch.ONE_QUEUE if one_queue else Dispatch.ROTATION)
    found = find(fleet, gateways, target_p99_ms=target_p99_ms, seed=seed, progress=_tell)
    if as_json:
        show_json(msgspec.json.encode(found))
    else:
        _show(fleet, found.enough, target_p99_ms)


def _tell(load: Load) -> None:
    how = ", and the queue grows" if load.grows else ""
    typer.echo(f"tried {load.gateways:,} gateways: p99 {load.stay_p99_ms:.1f} ms{how}", err=True)


def _show(fleet: Fleet, enough: Load, target_p99_ms: float) -> None:
    typer.echo(
        f"{fleet.devices:,} devices, {fleet.frames_per_s:g} frames/s each, {fleet.offload_fraction:.1%} "
        f"offloaded: {fleet.requests_per_s:,.0f} requests/s"
    )
    typer.echo(
        f"gateways needed: {enough.gateways:,}; p99 {enough.stay_p99_ms:.1f} of {target_p99_ms:g} ms, "
        f"median {enough.stay_p50_ms:.1f} ms, busy {enough.utilisation:.0%} of the time"
    )
