"""Certificates of a test's own authority, and TLS before a service that has none."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from relay import Relay, address_of

from edge_sdk.transport.tls import pin_of

HOSTS = (x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("service.test"))
NO_PIN = "A" * 43 + "="  # of no key that anybody has


class Authority:
    """A root that signs a deputy, which signs the certificates of services; all as PEM in `folder`."""

    def __init__(self, folder: Path, name: str = "root") -> None:
        self._folder, self._name = folder, name
        self._root_key, self._middle_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        root = _certificate(name, self._root_key, name, self._root_key)
        middle = _certificate(f"{name}'s deputy", self._middle_key, name, self._root_key)
        self._middle_pem = middle.public_bytes(Encoding.PEM)
        self.ca_file = folder / f"{name}.pem"
        self.ca_file.write_bytes(root.public_bytes(Encoding.PEM))
        self.root_pin, self.middle_pin = pin_of(root), pin_of(middle)

    def issue(self, name: str, key: ec.EllipticCurvePrivateKey | None = None) -> tuple[ssl.SSLContext, str]:
        """What a service speaks with a certificate for HOSTS, and the pin of its key."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        issuer = f"{self._name}'s deputy"
        certificate = _certificate(name, key, issuer, self._middle_key, hosts=HOSTS)
        path = self._folder / f"{self._name}-{name}.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
            + self._middle_pem
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context, pin_of(certificate)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: tuple[x509.GeneralName, ...] = (),
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=not hosts, path_length=None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


class TlsFront(Relay):
    """Speaks TLS to devices and carries what they say to a service without; `heard` is all of it."""

    def __init__(self, service_url: str, context: ssl.SSLContext, pin: str) -> None:
        super().__init__()
        self._target, self.context, self.pin = address_of(service_url), context, pin
        self.heard = b""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def handle(self, device: socket.socket) -> None:
        def hear(piece: bytes) -> bytes:
            self.heard += piece
            return piece

        device.settimeout(20)
        with self.context.wrap_socket(device, server_side=True) as encrypted:
            encrypted.settimeout(None)
            self._open.append(encrypted)
            self.carry_both(encrypted, self.connect(self._target), hear)
