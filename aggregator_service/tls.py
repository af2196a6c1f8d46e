"""TLS of the service's socket, and the refusal to listen to a network without it."""

from __future__ import annotations

import ipaddress
import ssl

from aggregator_service.settings import Settings
from hetlora.errors import SettingsError


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What the socket speaks: TLS 1.2 or newer with the settings' certificate; None without one.

    Raises:
        SettingsError: one of certificate and key without the other, or files that cannot be used.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise SettingsError(
            "a certificate and its key go together",
            got=f"only HETLORA_TLS_{'KEY' if certificate is None else 'CERTIFICATE'}",
            expected="HETLORA_TLS_CERTIFICATE and HETLORA_TLS_KEY",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty password: a service without a terminal could not be asked for that of an encrypted key.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise SettingsError(
            "the certificate or its key cannot be used",
            got=f"{certificate}, {key}: {getattr(error, 'strerror', None) or error}",
            expected="PEM files that belong together, the key not encrypted",
        ) from error
    return context


def check_exposure(settings: Settings, address: str) -> None:
    """Refuse to listen where others could read along.

    Raises:
        SettingsError: the address is not this machine's own loopback, and neither a certificate nor
            `insecure_http` is set.
    """
    if settings.tls_certificate or settings.insecure_http or ipaddress.ip_address(address).is_loopback:
        return
    raise SettingsError(
        "without TLS the service listens on this machine alone",
        got=f"address {address}, no HETLORA_TLS_CERTIFICATE",
        expected="a certificate (`hetlora tls self-signed` makes one), or HETLORA_INSECURE_HTTP=true behind "
        "a proxy that brings TLS",
    )
