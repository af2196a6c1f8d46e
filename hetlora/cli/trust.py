"""Whom a command trusts to be the service, and by which way it goes there."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

import typer

from hetlora.errors import SettingsError

CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar="HETLORA_CA_FILE",
        help="PEM file of who may vouch for the service, instead of the system's authorities; a self-signed "
        "certificate vouches for itself.",
    ),
]
PinOption = Annotated[
    list[str] | None,
    typer.Option(
        envvar="HETLORA_TLS_PINS",
        help="A key that the service's certificate chain has to hold, as `hetlora tls pin` shows it; again "
        "for others, of which one will do.",
    ),
]
ProxyOption = Annotated[
    str | None,
    typer.Option(
        envvar="HETLORA_PROXY",
        help="Go by this proxy, http(s)://[USER:PASSWORD@]HOST[:PORT], whatever HTTPS_PROXY, HTTP_PROXY and "
        "NO_PROXY say. Others can read a command line: a password is better given by HETLORA_PROXY.",
    ),
]


def trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    """What httpx takes as `verify`.

    Raises:
        SettingsError: a file that holds no certificate.
    """
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl's own errors among them
        raise SettingsError(
            f"{ca_file} cannot be used", got=error.strerror or error, expected="certificates in PEM"
        ) from error
