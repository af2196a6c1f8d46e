"""Who a device is: its key in the device's database, and the id that follows from it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.identity.identity import Identity
from edge_sdk.identity.identity_store import IdentityStore
from hetlora.errors import SettingsError


@pytest.fixture
def database(folder: DeviceFolder) -> Iterator[DeviceDatabase]:
    with closing(DeviceDatabase(folder.database)) as database:
        yield database


@pytest.fixture
def store(database: DeviceDatabase) -> IdentityStore:
    return IdentityStore(database)


def test_key_is_made_once_and_read_after(store: IdentityStore, folder: DeviceFolder) -> None:
    first = store.identity()
    with closing(DeviceDatabase(folder.database)) as database:
        assert IdentityStore(database).identity().public_key == first.public_key


def test_device_id_is_the_head_of_the_public_keys_digest() -> None:
    identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    # RFC 8032 arithmetic: the public key of the all-zero seed.
    raw = bytes.fromhex("3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29")
    assert identity.public_key == base64.b64encode(raw).decode()
    assert identity.device_id == hashlib.sha256(raw).hexdigest()[:32]


def test_signature_verifies_under_the_public_key() -> None:
    identity = Identity(Ed25519PrivateKey.generate())
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(identity.public_key))
    public.verify(identity.sign(b"data"), b"data")


def test_key_to_come_is_one_until_it_is_taken_or_dropped(store: IdentityStore) -> None:
    first = store.identity()
    to_come = store.next_identity()
    assert store.next_identity().public_key == to_come.public_key != first.public_key
    assert to_come.device_id == first.device_id
    assert store.has_next()
    store.drop_next()
    assert not store.has_next()
    assert store.identity().public_key == first.public_key

    other = store.next_identity()
    assert other.public_key != to_come.public_key
    store.take_next()
    assert not store.has_next()
    assert (store.identity().public_key, store.identity().device_id) == (other.public_key, first.device_id)


def test_what_is_kept_and_no_key_is_refused_and_stays(store: IdentityStore, database: DeviceDatabase) -> None:
    store.identity()
    with database.writing() as rows:
        rows.execute("UPDATE identity SET key = 'no key'")
    with pytest.raises(SettingsError, match="the device's database holds no key"):
        store.identity()
    with database.reading() as rows:
        assert rows.execute("SELECT key FROM identity").fetchone() == ("no key",)


def test_key_of_another_kind_is_refused(store: IdentityStore, database: DeviceDatabase) -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    store.identity()
    with database.writing() as rows:
        rows.execute("UPDATE identity SET key = ?", (pem,))
    with pytest.raises(SettingsError, match="another kind of key"):
        store.identity()
