"""Whom a device takes for the service: authorities that vouch for it, and keys that it insists on (pins)."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import httpx

from hetlora.errors import SettingsError, TlsPinMismatch

_PIN: Final = re.compile("[A-Za-z0-9+/]{43}=")  # SHA-256 in base64


def tls_context(ca_file: Path | str | None = None, pins: Iterable[str] = ()) -> ssl.SSLContext:
    """A client's side of TLS, which verifies name and chain whatever else it is given.

    Args:
        ca_file: PEM of who may vouch for the service; None leaves it to certifi, or to SSL_CERT_FILE and
            SSL_CERT_DIR of the environment.
        pins: SHA-256 of SubjectPublicKeyInfo in base64, as RFC 7469 has them: the verified chain has to hold
            one of these keys, be it the service's or an authority's. None: any will do.

    Raises:
        SettingsError: a file without certificates, or a pin of another form.
    """
    context = _trusting(ca_file)
    insisted = frozenset(pins)
    for pin in sorted(insisted):
        if not _PIN.fullmatch(pin):
            raise SettingsError("a pin", got=pin, expected="SHA-256 of a public key in base64, 44 characters")
    if insisted:
        _insist(context, insisted)
    return context


def pins_of(connection: ssl.SSLSocket | ssl.SSLObject) -> dict[str, str]:
    """The pins of the keys in the verified chain of a connection, the service's first, with owners' names."""
    from cryptography import x509  # here: most devices have no pins, and it takes a while

    read = [x509.load_der_x509_certificate(certificate) for certificate in _chain(connection)]
    return {pin_of(certificate): certificate.subject.rfc4514_string() for certificate in read}


def pin_of(certificate: Any) -> str:
    """The pin of the key in a certificate of `cryptography.x509`."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def _trusting(ca_file: Path | str | None) -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context() if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl's own errors among them
        raise SettingsError(
            f"{ca_file or 'the file of certificate authorities'} cannot be used",
            got=error.strerror or error,
            expected="certificates in PEM",
        ) from error


def _insist(context: ssl.SSLContext, pins: frozenset[str]) -> None:
    """Have all connections of a context look for a pinned key once they are verified, before any is used."""

    class PinnedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            try:
                _look_for(pins, self)
            except BaseException:
                self.close()  # whoever wraps a socket closes it after errors of the system only
                raise

    class PinnedObject(ssl.SSLObject):  # what TLS through the TLS of a proxy has in place of a socket
        def do_handshake(self) -> None:
            super().do_handshake()
            _look_for(pins, self)

    context.sslsocket_class = PinnedSocket
    context.sslobject_class = PinnedObject


def _look_for(pins: frozenset[str], connection: ssl.SSLSocket | ssl.SSLObject) -> None:
    seen = pins_of(connection)
    if pins.isdisjoint(seen):
        raise TlsPinMismatch(
            "no key of the service's certificate chain is pinned",
            got=", ".join(f"{pin} ({owner})" for pin, owner in seen.items()),
            expected=" or ".join(sorted(pins)),
        )


def _chain(connection: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """The certificates in DER by which a connection was verified, its own first, the authority's last."""
    # Public from Python 3.13 on; before that it is the inner object's, which httpcore hands out by itself.
    for holder in (connection, getattr(connection, "_sslobj", None)):
        told = getattr(holder, "get_verified_chain", None)
        if told is not None:
            return [_der(certificate) for certificate in told()]
    own = connection.getpeercert(binary_form=True)  # an authority's key is not found then, and refused
    return [] if own is None else [own]


def _der(certificate: Any) -> bytes:
    if isinstance(certificate, bytes):
        return certificate
    return ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
