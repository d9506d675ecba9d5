"""`edgeexit gateway`: runs deep stages for devices until it is told to stop."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from edgeexit.cli.present import command


@command
def gateway(
    store: Annotated[Path | None, typer.Option(help="Folder of bundles to serve.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with a table named gateway.")] = None,
    gateway_id: Annotated[
        str | None, typer.Option("--id", help="Name of this gateway: a to z, 0 to 9 and hyphens.")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="mqtt://host:port or mqtts://host:port")] = None,
    with_broker: Annotated[
        bool, typer.Option("--with-broker", help="Start a broker on loopback as well.")
    ] = False,
    concurrency: Annotated[int | None, typer.Option(help="Requests served at a time.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of one interpreter.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="What ONNX Runtime computes with: cpu, cuda or tensorrt.")
    ] = None,
    queue_limit: Annotated[int | None, typer.Option(help="Requests that may wait.")] = None,
    trusted_key: Annotated[
        list[str] | None,
        typer.Option(help="Public key, one line, of who may sign bundles; may be given several times."),
    ] = None,
    log_file: Annotated[Path | None, typer.Option(help="Where to log; standard error without it.")] = None,
) -> None:
    """Serve the deep stages of every bundle in a folder, over MQTT."""
    from edgeexit.gateway.config import read_config
    from edgeexit.gateway.program import run_gateway
    from edgeexit.transport.broker import Broker

    with ExitStack() as parts:
        if with_broker:
            broker = f"mqtt://127.0.0.1:{parts.enter_context(Broker()).port}"
            typer.echo(f"broker at {broker}", err=True)
        settings = read_config(
            config,
            {
                "store": store,
                "id": gateway_id,
                "broker": broker,
                "concurrency": concurrency,
                "threads": threads,
                "provider": provider,
                "queue_limit": queue_limit,
                "trusted_keys": tuple(trusted_key) if trusted_key else None,
                "log_file": log_file,
            },
        )
        raise typer.Exit(run_gateway(settings))
