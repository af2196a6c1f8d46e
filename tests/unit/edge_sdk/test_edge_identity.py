import base64
import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_sdk.identity.identity import Identity, load_or_create_identity
from hetlora.errors import SettingsError


def test_key_is_made_once_and_read_after(tmp_path: Path) -> None:
    first = load_or_create_identity(tmp_path / "key.pem")
    assert load_or_create_identity(tmp_path / "key.pem").device_id == first.device_id
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


def test_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    load_or_create_identity(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


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


def test_key_open_to_others_is_refused(tmp_path: Path) -> None:
    load_or_create_identity(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(SettingsError, match="open to other users; got mode 0640; expected mode 0600"):
        load_or_create_identity(tmp_path / "key.pem")


def test_damaged_key_file_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    (tmp_path / "key.pem").chmod(0o600)
    with pytest.raises(SettingsError, match="is no key file"):
        load_or_create_identity(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_text() == "no key"


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "key.pem").chmod(0o600)
    with pytest.raises(SettingsError, match="another kind of key"):
        load_or_create_identity(tmp_path / "key.pem")


def test_folder_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be written; got No such file"):
        load_or_create_identity(tmp_path / "absent" / "key.pem")
