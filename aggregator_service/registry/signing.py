"""Signs entries of the registry, and remembers which keys did."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from aggregator_service.service import Service
from aggregator_service.signing_key import read_signing_key, write_new_signing_key
from aggregator_service.storage.database import SQLITE
from aggregator_service.storage.registry_tables import SigningKeyRow
from hetlora.digest import sha256_of
from hetlora.errors import SettingsError, UnavailableError
from hetlora.messages.registry import RegistryEntry, SigningKey
from hetlora.signed_manifest import PAYLOAD_TYPE, SignedManifest, canonical_json, envelope, pre_authentication

log = logging.getLogger(__name__)

KEY_FILE: Final = "registry-key.pem"


def signed(service: Service, entry: RegistryEntry) -> SignedManifest:
    """An entry under the service's key; the same entry and key give the same bytes.

    Raises:
        UnavailableError: this process has no key, or none that can be used.
    """
    key, body = _key(service), canonical_json(entry)
    return envelope(body, _public(key), key.sign(pre_authentication(PAYLOAD_TYPE, body)))


def signing_key(session: Session, row: SigningKeyRow) -> SigningKey:
    return SigningKey(key_id=row.id, public_key=row.public_key, first_used_at=row.first_used_at)


def _key(service: Service) -> Ed25519PrivateKey:
    """The key in force, read anew each time, so that one that was replaced needs no restart."""
    path = service.settings.signing_key or service.settings.data_dir / KEY_FILE
    try:
        if service.settings.signing_key is None and not path.exists():
            _make(service, path)
        key = read_signing_key(path)
    except SettingsError as error:
        log.error("signing_key=unusable error=%s", error)
        raise UnavailableError(
            "this process cannot sign", got=error.what, expected="an operator of the service to mend it"
        ) from error
    with service.database.read() as session:
        known = session.get(SigningKeyRow, sha256_of(_public(key))) is not None
    if not known:
        with service.database.write() as session:
            _remember(service, session, key)
    return key


def _make(service: Service, path: Path) -> None:
    """Make the first key of a service; of processes that come to it together one does."""
    with service.database.write() as session:
        _lock(session)
        # Asked first: on SQLite it is what waits for whoever is making one.
        has_signed = session.scalar(select(SigningKeyRow.id).limit(1)) is not None
        if path.exists():
            return
        if has_signed:
            raise UnavailableError(
                "this process has not the key that this service signs with",
                got=f"no {KEY_FILE} in its folder",
                expected="HETLORA_SIGNING_KEY, the same for each process, or a data folder that they share",
            )
        try:
            _remember(service, session, write_new_signing_key(path))
        except OSError as error:
            raise SettingsError("the signing key cannot be written", got=error) from error
    log.info("signing_key=generated file=%s", path)


def _remember(service: Service, session: Session, key: Ed25519PrivateKey) -> None:
    _lock(session)
    public = _public(key)
    if session.get(SigningKeyRow, sha256_of(public)) is None:
        row = SigningKeyRow(
            id=sha256_of(public),
            public_key=base64.b64encode(public).decode(),
            first_used_at=service.clock(),
        )
        session.add(row)


def _lock(session: Session) -> None:
    if session.get_bind().dialect.name != SQLITE:  # where writes follow one another anyway
        session.execute(text("LOCK TABLE signing_keys IN EXCLUSIVE MODE"))


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()
