"""TLS of the service's socket, and the refusal to listen to a network without it."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from pathlib import Path

from aggregator_service.settings import Settings
from hetlora.errors import SettingsError

log = logging.getLogger(__name__)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What the socket speaks: TLS 1.2 or newer with the settings' certificate; None without one.

    A certificate that is renewed on disk is served to connections that begin afterwards.

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
    newest = _Newest(certificate, key)
    context = newest.context
    context.sni_callback = newest.serve
    return context


class _Newest:
    """The certificate that its files held when they could last be used; looked at as connections begin.

    A context of its own for each, as one that meets files of two certificates, of which one was written and
    the other not yet, could serve neither.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self._read = self._looks()
        self.context = _context(certificate, key)

    def serve(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Go on with a handshake that has just begun, whether or not the client names a host."""
        looks = self._looks()
        if looks != self._read:
            self._read = looks
            try:
                self.context = _context(self._certificate, self._key)
                log.info("certificate=renewed file=%s", self._certificate)
            except SettingsError as error:
                log.error("certificate=kept error=%s", error)
        connection.context = self.context

    def _looks(self) -> list[tuple[int, ...] | None]:
        """What tells whether a file is another, or was written to, without reading it."""
        found: list[tuple[int, ...] | None] = []
        for path in (self._certificate, self._key):
            try:
                stat = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        return found


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
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
