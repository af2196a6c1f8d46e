"""`hetlora tls`: certificates to serve with, and pins of their keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import typer

from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.trust import CaFileOption, ProxyOption
from hetlora.errors import ServiceUnreachable, SettingsError

app = typer.Typer(no_args_is_help=True, help="TLS: certificates to serve with, and pins of keys.")


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
    """Make a certificate that signs itself, and its key, and show its SHA-256 fingerprint and its key's pin.

    Serve with it as HETLORA_TLS_CERTIFICATE and HETLORA_TLS_KEY; give clients the certificate as
    HETLORA_CA_FILE, over a way on which nobody could swap it, or compare the fingerprint.

    Example: `hetlora tls self-signed --host fl.example.org --host 192.0.2.7`
    """
    with part("service"):
        from cryptography.x509 import load_pem_x509_certificate

        from aggregator_service.self_signed import self_signed, write_self_signed
        from edge_sdk.transport.tls import pin_of
    made = self_signed(host, datetime.now(UTC), days)
    write_self_signed(made, certificate, key)
    pin = pin_of(load_pem_x509_certificate(made.certificate))
    if as_json:
        print_json({"certificate": str(certificate), "key": str(key), "sha256": made.sha256, "pin": pin})
    else:
        say(f"certificate {certificate}, key {key}", f"SHA-256 {made.sha256}", f"pin {pin}")


@app.command("pin")
def show_pins(
    url: Annotated[str, typer.Argument(help="Where the service listens, https://HOST[:PORT].")],
    ca_file: CaFileOption = None,
    proxy: ProxyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the pins of the keys that a service's certificate is verified by, its own first.

    They are what `hetlora device run --pin` and `EdgeClient(tls_pins=...)` take. Ask over a line that you
    trust: what is shown is whoever answers. Pin two: a key in use, and one that is kept for after it.

    Example: `hetlora tls pin https://fl.example.org:8440`
    """
    with part("edge"):
        from edge_sdk.transport.tls import pins_of
        from edge_sdk.transport.transport import TIMEOUT, checked_address
        from edge_sdk.transport.way import Way
    if not url.startswith("https://"):
        raise SettingsError("pins are of keys of TLS", expected="https://HOST[:PORT]")
    with Way(ca_file, proxy=proxy).client(checked_address(url), timeout=TIMEOUT) as client:
        try:
            with client.stream("HEAD", url) as answer:
                pins = pins_of(answer.extensions["network_stream"].get_extra_info("ssl_object"))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceUnreachable("nobody answers there by TLS", got=error) from error
    if as_json:
        print_json({"pins": [{"pin": pin, "subject": subject} for pin, subject in pins.items()]})
    else:
        say(*(f"{pin}  {subject}" for pin, subject in pins.items()))
