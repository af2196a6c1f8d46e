"""`hetlora serve`: the aggregation service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hetlora.cli.operator import TOKEN_FILE
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part

Engine = Literal["local", "ray"]
Role = Literal["all", "api", "worker"]


def serve(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where database, objects and token live. [HETLORA_DATA_DIR, else hetlora-data]"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [HETLORA_HOST, else 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, 0 for any free one. [HETLORA_PORT, else 8440]")
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(help="Who aggregates: this machine, or a Ray cluster. [HETLORA_ENGINE, else local]"),
    ] = None,
    role: Annotated[
        Role | None,
        typer.Option(help="Answer requests, bring rounds on, or both. [HETLORA_ROLE, else all]"),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate to serve with. [HETLORA_TLS_CERTIFICATE]")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key. [HETLORA_TLS_KEY]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the aggregation service until it is stopped; any number of times on one database.

    Nothing is open by default: the first admin needs the token (HETLORA_OPERATOR_TOKEN, or the one written on
    the first start to `operator-token` in the data folder) and makes keys for others (`hetlora key create`),
    devices need a population's enrolment token. Killing the process at any moment loses nothing that was
    accepted.

    On other addresses than loopback it wants a certificate: `hetlora tls self-signed` makes one.

    Processes that share HETLORA_DATABASE_URL (PostgreSQL) and HETLORA_OBJECT_STORE_URL, or one data folder,
    are one service: any of them may die, and the others go on.

    HETLORA_AGGREGATION_WORKERS processes aggregate. With `--engine ray` they are those of a Ray cluster, one
    started here or the one at HETLORA_RAY_ADDRESS. The result is the same to the last bit. Further settings:
    docs/settings.md.

    Example: `hetlora serve --data-dir hetlora-data`
    """
    with part("service"):
        from aggregator_service.observability.logs import set_up_logging
        from aggregator_service.server import serve as run_service
        from aggregator_service.settings import Settings

    # What is not given here is left to the environment and to the defaults of Settings.
    given = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "engine": engine,
        "role": role,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
    }
    settings = Settings(**{name: value for name, value in given.items() if value is not None})

    set_up_logging(settings.log_format, settings.log_level)

    def announce(address: str) -> None:
        if as_json:
            print_json({"url": address, "data_dir": str(settings.data_dir)})
            return
        say(f"listening on {address}, data in {settings.data_dir}")
        if settings.operator_token is None:
            say(f"operator token in {settings.data_dir / TOKEN_FILE}")

    run_service(settings, announce)
