"""`hetlora serve`: the aggregation service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.operator import TOKEN_FILE
from hetlora.cli.output import stdout
from hetlora.cli.parts import part


def serve(
    data_dir: Annotated[
        Path, typer.Option(envvar="HETLORA_DATA_DIR", help="Where the database, objects and token live.")
    ] = Path("hetlora-data"),
    host: Annotated[str, typer.Option(envvar="HETLORA_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="HETLORA_PORT", min=1, max=65535, help="Port to listen on.")
    ] = 8440,
) -> None:
    """Run the aggregation service until it is stopped.

    Nothing is open by default: operators need the token (HETLORA_OPERATOR_TOKEN, or the one written on the
    first start to `operator-token` in the data folder), devices need a population's enrolment token. Killing
    the process at any moment loses nothing that was accepted. Further settings: docs/settings.md.
    """
    with part("service"):
        from aggregator_service.server import serve as run_service
        from aggregator_service.settings import Settings

    def announce(address: str) -> None:
        stdout.print(f"listening on {address}, data in {data_dir}")
        if not os.environ.get("HETLORA_OPERATOR_TOKEN"):
            stdout.print(f"operator token in {data_dir / TOKEN_FILE}")

    run_service(Settings(data_dir=data_dir, host=host, port=port), announce)
