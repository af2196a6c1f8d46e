"""Manifests that a service signs of its adapter versions, and who else could have."""

from __future__ import annotations

import base64
import json
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from service_bundle import make_adapter
from service_operator import TOKEN, Operator
from service_server import problem
from service_verbs import add_device, deliver, started_run
from typer.testing import CliRunner

from aggregator_service.registry.lineage import registry_entry
from aggregator_service.registry.signing import KEY_FILE, signed
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.signing_key import read_signing_key
from aggregator_service.worker.worker import tick
from hetlora.cli.main import app
from hetlora.digest import sha256_of
from hetlora.errors import (
    DigestMismatch,
    HetloraError,
    MalformedMessage,
    SettingsError,
    UnavailableError,
    WireError,
)
from hetlora.signed_manifest import SignedManifest, pre_authentication


def version_of(operator: Operator, device: FakeDevice, bundle: str) -> str:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    return str(operator.committed(run_id)["adapter_version"])


def pem_of(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_file(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_manifest_is_signed_by_the_key_that_is_shown(
    operator: Operator, device: FakeDevice, bundle: str, settings: Settings
) -> None:
    version = version_of(operator, device, bundle)
    assert operator.items("/signing-keys") == []

    envelope = operator.call("GET", f"/adapters/{version}/manifest")

    (shown,) = operator.items("/signing-keys")
    (signature,) = envelope["signatures"]
    public = base64.b64decode(shown["public_key"])
    assert shown["key_id"] == signature["keyid"] == sha256_of(public)
    body = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    # As DSSE has it, written out.
    signed_bytes = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    key = Ed25519PublicKey.from_public_bytes(public)
    key.verify(base64.b64decode(signature["sig"]), signed_bytes)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signature["sig"]), signed_bytes.replace(b"keyboard", b"keyb0ard"))
    entry = json.loads(body)
    assert body == json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    assert entry["lineage"] == operator.call("GET", f"/adapters/{version}")["lineage"]
    content, _ = operator.published(version)
    assert entry["adapter"] == {"sha256": sha256_of(content), "size_bytes": len(content)}
    assert stat.S_IMODE((settings.data_dir / KEY_FILE).stat().st_mode) == 0o600


def test_manifest_stays_the_same_whatever_is_said_of_the_version(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    version = version_of(operator, device, bundle)
    before = operator.send("GET", f"/adapters/{version}/manifest").content
    operator.call("POST", f"/adapters/{version}/notes", json={"text": "fine"})
    message = {"version": version, "reason": "less loss"}
    operator.call("POST", "/populations/keyboard/aliases/champion:set", json=message)
    assert operator.send("GET", f"/adapters/{version}/manifest").content == before


def test_first_manifests_asked_for_at_once_are_of_one_key(operator: Operator, bundle: str) -> None:
    version = operator.call("GET", f"/runs/{operator.run(bundle)}")["adapter_version"]
    path = f"/adapters/{version}/manifest"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: operator.send("GET", path), range(8)))
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert len({answer.content for answer in answers}) == 1
    assert len(operator.items("/signing-keys")) == 1


def test_manifest_of_nothing_is_not_found(operator: Operator) -> None:
    assert problem(operator.send("GET", "/adapters/nothing/manifest")) == (404, "not_found")
    assert operator.items("/signing-keys") == []


def made(service: Service, bundle: str) -> str:
    """A version, without HTTP."""
    run_id = started_run(service, bundle)
    deliver(service, add_device(service), make_adapter(2))
    tick(service)
    return f"{run_id}-v000001"


def envelope_of(service: Service, version: str) -> SignedManifest:
    return signed(service, registry_entry(service, version))


@pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
def test_machines_with_one_key_sign_alike_and_one_without_says_so(
    service: Service, bundle: str, settings: Settings, tmp_path: Path
) -> None:
    version = made(service, bundle)
    first = envelope_of(service, version)
    key = key_file(tmp_path / "key.pem", (settings.data_dir / KEY_FILE).read_bytes())
    shutil.copytree(settings.data_dir / "objects", tmp_path / "another" / "objects")
    other = settings.model_copy(update={"data_dir": tmp_path / "another"})
    with (
        closing(open_service(other, service.clock)) as without,
        pytest.raises(UnavailableError, match="HETLORA_SIGNING_KEY"),
    ):
        envelope_of(without, version)
    assert not (tmp_path / "another" / KEY_FILE).exists()
    given = other.model_copy(update={"signing_key": key})
    with closing(open_service(given, service.clock)) as replica:
        assert envelope_of(replica, version) == first


def test_replaced_key_signs_from_then_on_and_both_are_shown(
    service: Service, bundle: str, settings: Settings
) -> None:
    version = made(service, bundle)
    first = envelope_of(service, version)
    key_file(settings.data_dir / KEY_FILE, pem_of(Ed25519PrivateKey.generate()))
    second = envelope_of(service, version)
    assert second.payload == first.payload
    assert second.signatures != first.signatures
    assert envelope_of(service, version) == second


@pytest.mark.parametrize(
    ("data", "mode", "words"),
    [
        (pem_of(Ed25519PrivateKey.generate()), 0o644, "the signing key is open to other users"),
        (pem_of(X25519PrivateKey.generate()), 0o600, "the signing key is of another kind"),
        (b"no key", 0o600, "the signing key cannot be used"),
        (None, 0o600, "the signing key cannot be read"),
    ],
)
def test_key_that_cannot_be_used_stops_the_start(
    tmp_path: Path, data: bytes | None, mode: int, words: str
) -> None:
    path = tmp_path / "key.pem" if data is None else key_file(tmp_path / "key.pem", data, mode)
    with pytest.raises(SettingsError, match=words):
        open_service(Settings(data_dir=tmp_path / "data", signing_key=path))
    assert not (tmp_path / "data").exists()


def test_key_that_was_damaged_since_is_told_without_a_word_of_it(
    service: Service, bundle: str, settings: Settings
) -> None:
    version = made(service, bundle)
    key_file(settings.data_dir / KEY_FILE, b"torn")
    with pytest.raises(UnavailableError, match="this process cannot sign") as told:
        envelope_of(service, version)
    assert "torn" not in str(told.value)
    assert (settings.data_dir / KEY_FILE).read_bytes() == b"torn"  # nothing is written over a key


def test_key_written_by_a_process_that_died_is_taken_up(
    service: Service, bundle: str, settings: Settings
) -> None:
    version = made(service, bundle)
    key = Ed25519PrivateKey.generate()
    key_file(settings.data_dir / KEY_FILE, pem_of(key))  # and no row of it
    assert envelope_of(service, version).signatures[0].keyid == sha256_of(key.public_key().public_bytes_raw())
    assert read_signing_key(settings.data_dir / KEY_FILE).private_bytes_raw() == key.private_bytes_raw()


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def where(http: httpx.Client) -> list[str]:
    return ["--url", str(http.base_url), "--token", TOKEN]


def shown_key(http: httpx.Client) -> str:
    listed = json.loads(run("adapter", "signing-keys", "--json", *where(http)))
    return str(listed["items"][0]["public_key"])


def test_downloaded_adapter_is_verified_without_the_service(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str, tmp_path: Path
) -> None:
    version, folder = version_of(operator, device, bundle), tmp_path / "downloaded"
    run("adapter", "download", version, "--out", folder, *where(http))
    assert {path.name for path in folder.iterdir()} == {"adapter.safetensors", "registry-manifest.json"}
    key = shown_key(http)
    told = run("adapter", "verify", folder, "--public-key", key)
    key_id = sha256_of(base64.b64decode(key))
    assert told == f"{version}: signed by {key_id}\nadapter.safetensors: as signed\n"
    verified = json.loads(run("adapter", "verify", folder, "--public-key", key, "--json"))
    assert (verified["key_id"], verified["files"]) == (key_id, ["adapter.safetensors"])
    assert verified["entry"]["version"] == version


def test_frozen_adapter_is_downloaded_and_verified_beside_it(
    http: httpx.Client, operator: Operator, device: FakeDevice, tmp_path: Path
) -> None:
    run_id = operator.run(operator.publish(SPEC), rule="flora", max_rank=RANK)
    work(device, RANK, seed=3)
    folder = tmp_path / "downloaded"
    version = operator.committed(run_id)["adapter_version"]
    run("adapter", "download", version, "--out", folder, *where(http))
    told = run("adapter", "verify", folder, "--public-key", shown_key(http)).splitlines()
    assert told[1:] == ["adapter.safetensors: as signed", "frozen.safetensors: as signed"]


def spoil_adapter(folder: Path) -> None:
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def spoil_payload(folder: Path) -> None:
    path = folder / "registry-manifest.json"
    envelope = json.loads(path.read_bytes())
    body = base64.b64decode(envelope["payload"]).replace(b"keyboard", b"keyb0ard")
    path.write_text(json.dumps(envelope | {"payload": base64.b64encode(body).decode()}))


def sign_with_another_key(folder: Path) -> None:
    path = folder / "registry-manifest.json"
    envelope = json.loads(path.read_bytes())
    body = base64.b64decode(envelope["payload"])
    signature = Ed25519PrivateKey.generate().sign(pre_authentication(envelope["payloadType"], body))
    # Under the id of the key that is trusted: ids are looked at for words alone.
    own = envelope["signatures"][0] | {"sig": base64.b64encode(signature).decode()}
    path.write_text(json.dumps(envelope | {"signatures": [own]}))


def spoil_envelope(folder: Path) -> None:
    (folder / "registry-manifest.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (spoil_adapter, DigestMismatch, "adapter.safetensors does not match its digest"),
        (spoil_payload, WireError, "signed by no key that is trusted"),
        (sign_with_another_key, WireError, "signed by no key that is trusted"),
        (spoil_envelope, MalformedMessage, "the file is no signed manifest"),
    ],
)
@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
def test_what_was_changed_since_is_found(
    http: httpx.Client,
    operator: Operator,
    device: FakeDevice,
    bundle: str,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    error: type[HetloraError],
    words: str,
) -> None:
    version, folder = version_of(operator, device, bundle), tmp_path / "downloaded"
    run("adapter", "download", version, "--out", folder, *where(http))
    key = shown_key(http)
    spoil(folder)
    with pytest.raises(error, match=words):
        run("adapter", "verify", folder, "--public-key", key)


@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
def test_key_that_is_none_or_folder_that_holds_none_is_told(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str, tmp_path: Path
) -> None:
    version, folder = version_of(operator, device, bundle), tmp_path / "downloaded"
    run("adapter", "download", version, "--out", folder, *where(http))
    with pytest.raises(SettingsError, match="32 bytes in base64"):
        run("adapter", "verify", folder, "--public-key", "c2hvcnQ=")
    with pytest.raises(SettingsError, match="the file cannot be read"):
        run("adapter", "verify", tmp_path, "--public-key", shown_key(http))
    with pytest.raises(SettingsError, match="new or empty folder"):
        run("adapter", "download", version, "--out", folder, *where(http))
