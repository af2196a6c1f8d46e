"""`hetlora tls`: certificates to serve with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part

app = typer.Typer(no_args_is_help=True, help="TLS: certificates to serve with.")


@app.callback()
def tls() -> None:
    pass


@app.command("self-signed")
def make_self_signed(
    host: Annotated[
        list[str],
        typer.Option(help="A name or address that clients reach the service under; again for each."),
    ],
    certificate: Annotated[Path, typer.Option(help="The certificate to write.")] = Path("hetlora-tls.pem"),
    key: Annotated[Path, typer.Option(help="The key to write, for its owner alone to read.")] = Path(
        "hetlora-tls-key.pem"
    ),
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it holds.")] = 365,
    as_json: JsonFlag = False,
) -> None:
    """Make a certificate that signs itself, and its key, and show its SHA-256 fingerprint.

    Serve with it as HETLORA_TLS_CERTIFICATE and HETLORA_TLS_KEY; give clients the certificate as
    HETLORA_CA_FILE, over a way on which nobody could swap it, or compare the fingerprint.

    Example: `hetlora tls self-signed --host fl.example.org --host 192.0.2.7`
    """
    with part("service"):
        from aggregator_service.self_signed import self_signed, write_self_signed
    made = self_signed(host, datetime.now(UTC), days)
    write_self_signed(made, certificate, key)
    if as_json:
        print_json({"certificate": str(certificate), "key": str(key), "sha256": made.sha256})
    else:
        say(f"certificate {certificate}, key {key}", f"SHA-256 {made.sha256}")
