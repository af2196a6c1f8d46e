"""A certificate that signs itself: TLS where no authority issues one, and clients are told what to trust."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hetlora.errors import SettingsError

_DNS_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_EARLIER: Final = timedelta(hours=1)  # for clients whose clock is behind
_USAGE: Final = x509.KeyUsage(  # a server's alone: it signs handshakes, and no certificate
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """A certificate and its key as PEM, and the fingerprint that people compare."""

    certificate: bytes
    key: bytes
    sha256: str


def self_signed(hosts: Sequence[str], now: datetime, days: int) -> SelfSigned:
    """Make a key on P-256 and its certificate, which holds for these names and addresses and signs no other.

    Raises:
        SettingsError: a host that is neither a name of DNS nor an address.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hetlora aggregation service")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return SelfSigned(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        sha256=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _DNS_NAME.fullmatch(name):
        raise SettingsError("host of a certificate", got=host, expected="a name of DNS, or an address")
    return x509.DNSName(name)


def write_self_signed(made: SelfSigned, certificate: Path, key: Path) -> None:
    """Write both files, the key for its owner's eyes alone.

    Raises:
        SettingsError: one of them is there already, or cannot be written.
    """
    try:
        _write_new(key, made.key, 0o600)
        try:
            _write_new(certificate, made.certificate, 0o644)
        except OSError:
            key.unlink()
            raise
    except OSError as error:
        raise SettingsError(
            "the certificate cannot be written",
            got=f"{error.filename}: {error.strerror}",
            expected="a folder to write to, without files of these names",
        ) from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
