"""`edgeexit run`: one image, one answer by the deadline, and the route that led there."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json

if TYPE_CHECKING:
    from edgeexit.bundle.store import Bundle
    from edgeexit.decide.answer import Answer
    from edgeexit.engine import Engine
    from edgeexit.transport.offload import MqttTransport

# A gateway's advert comes once a second; a broker that is there answers within these.
LINK_WAIT_S = 5.0
# A probe over any link that is worth sending over is back by then.
PROBE_WAIT_S = 0.3


@command
def run(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    image: Annotated[Path, typer.Argument(help="An image file: PNG, JPEG, …")],
    budget_ms: Annotated[float, typer.Option(help="What the answer may take.")] = 1000.0,
    broker: Annotated[
        str | None, typer.Option(help="mqtt://host:port: let gateways behind it run deep stages.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Prefer this variant of every stage, such as f32.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of the runtime.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Answer for one image by a deadline, and show exit, place and route."""
    import msgspec

    from edgeexit.bundle.store import open_bundle
    from edgeexit.decide.answer import Record
    from edgeexit.decide.budget import Budget, FixedBudget
    from edgeexit.decide.calibration import quality_tables
    from edgeexit.decide.latency import LatencyModel
    from edgeexit.decide.policies.hedged import HedgedGain
    from edgeexit.engine import Engine, Frame
    from edgeexit.runner.packing import open_packing
    from edgeexit.runner.preprocess import read_image
    from edgeexit.runner.selection import monotonic_ms, open_verified

    budgets = FixedBudget(Budget(budget_ms))
    opened = open_bundle(bundle)
    pixels = read_image(image)
    transport = None if broker is None else _transport(opened, broker)
    runner, report = open_verified(opened, threads=threads, prefer=variant)
    packing = None if transport is None else open_packing(opened, runner, threads=threads)
    seen: list[Record] = []
    with Engine(
        opened,
        runner,
        policy=HedgedGain(tables=quality_tables(opened.manifest.exits, report.chosen)),
        latency=LatencyModel(report.median_ms),
        budgets=budgets,
        clock=monotonic_ms,
        emit=seen.append,
        transport=transport,
        packing=packing,
    ) as engine:
        if transport is not None:
            _await_link(engine, transport)
        answer = engine.answer(Frame(0, image.name, monotonic_ms(), pixels))
    runner.close()
    if as_json:
        show_json(msgspec.json.encode(replace(answer, output=tuple(answer.output))))
    else:
        _show(answer, opened)


def _transport(bundle: Bundle, broker: str) -> MqttTransport:
    from edgeexit.board.host_name import host_id
    from edgeexit.transport.address import parse_broker
    from edgeexit.transport.exchange import ServedBundle
    from edgeexit.transport.offload import MqttTransport, OffloadConfig

    manifest = bundle.manifest
    served = ServedBundle(bundle.digest, manifest.stage_count, manifest.exits[0].output.size)
    return MqttTransport(OffloadConfig(parse_broker(broker), f"{host_id('device')[:40]}-run"), served)


def _await_link(engine: Engine, transport: MqttTransport) -> None:
    """Wait a moment for broker and gateway: one image has no second chance to find them.

    Raises: BrokerError when there is no broker where one was named; a gateway may be missing.
    """
    until_s = time.monotonic() + LINK_WAIT_S
    while time.monotonic() < until_s and not transport.status().up:
        if transport.error is not None:
            raise transport.error
        time.sleep(0.02)
    if not transport.status().up:
        typer.echo("no gateway answers; going on alone", err=True)
        return
    engine.idle()  # its probe is the first thing known of the link
    time.sleep(PROBE_WAIT_S)
    engine.idle()


def _show(answer: Answer, bundle: Bundle) -> None:
    manifest = bundle.manifest
    what = f"value {answer.output[0]:g}" if answer.label is None else manifest.labels[answer.label]
    late = "" if answer.on_time else ", LATE"
    typer.echo(f"{what}   score {answer.score:.3f}, expected quality {answer.quality:.3f}")
    typer.echo(
        f"exit {answer.exit} of {manifest.stage_count - 1} on {answer.place.value}, "
        f"{answer.latency_ms:.1f} of {answer.deadline_ms:.0f} ms{late}, {answer.uplink_bytes} bytes sent"
    )
    typer.echo("route: " + " → ".join(answer.route))
