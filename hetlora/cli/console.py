"""`hetlora console`: the operators' pages."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Annotated

import typer

from hetlora.cli.operator import DEFAULT_URL, Operator, UrlOption
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part
from hetlora.cli.trust import CaFileOption, trusted
from hetlora.errors import PortInUse, SettingsError


def console(
    url: UrlOption = DEFAULT_URL,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8450,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate to serve with.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    ca_file: CaFileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve pages that show the fleet and steer runs, until it is stopped.

    Operators sign in with their keys (`hetlora key create`); what a key may do is the service's to say. A key
    stays in this process, and the browser gets a session that ends after eight hours at rest.

    On other addresses than loopback it wants a certificate: `hetlora tls self-signed` makes one.

    Example: `hetlora console --url https://fl.example.org:8440`
    """
    check_exposure(host, tls_certificate, tls_key)
    check_certificate(tls_certificate, tls_key)
    with part("console"):
        from console.app import create_console, serve_console
    verify = trusted(ca_file)
    app = create_console(lambda token: Operator(url, token, verify), secure=tls_certificate is not None)
    address = f"{'https' if tls_certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    with listen(host, port) as listener:
        if as_json:
            print_json({"url": address, "service_url": url})
        else:
            say(f"console on {address}, of the service at {url}")
        serve_console(app, listener, tls_certificate, tls_key)


def check_exposure(host: str, certificate: Path | None, key: Path | None) -> None:
    """Refuse to take keys over a line that others can read.

    Raises:
        SettingsError: no address, another than loopback without a certificate, or half of a certificate.
    """
    if (certificate is None) != (key is None):
        raise SettingsError("half of a certificate", expected="--tls-certificate and --tls-key, or neither")
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise SettingsError("no such file", got=path, expected="a PEM file")
    try:
        is_own = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise SettingsError("address to listen on", got=host, expected="an IP address") from error
    if not is_own and certificate is None:
        raise SettingsError(
            "keys would be sent in the clear",
            got=f"--host {host} without a certificate",
            expected="--tls-certificate and --tls-key, or a loopback address",
        )


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Look whether a certificate and its key can be served with, before anything is served.

    Raises:
        SettingsError: they cannot.
    """
    if certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:  # of which SSL's own errors are a kind
        raise SettingsError(
            "the certificate cannot be served with",
            got=f"{certificate} and {key}: {error}",
            expected="PEM files of a certificate and its key",
        ) from error


def listen(host: str, port: int) -> socket.socket:
    """Take the port, before the address is told.

    Raises:
        PortInUse: somebody else listens there.
        SettingsError: it is no address of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                "the address to listen on is taken", got=f"{host}:{port}", expected="a free --port"
            ) from error
        raise SettingsError(
            "cannot listen on this address", got=f"{host}:{port}: {error.strerror}"
        ) from error
