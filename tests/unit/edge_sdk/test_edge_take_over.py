"""A device folder of before: what lay in files is in the database, and nothing of it is lost on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from device_tables import identity_in, is_rotating, kept_for_runs, stored_parts
from fake_bundle import adapter_of
from fake_service import FakeService, report_of
from killed import Killed

from edge_sdk.client import EdgeClient
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.identity.identity import Identity, key_to_pem, new_identity
from edge_sdk.identity.identity_store import IdentityStore
from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.take_over import take_over
from hetlora.errors import SettingsError
from hetlora.tensors import adapter_to_bytes

MakeClient = Callable[..., EdgeClient]
UPDATE = adapter_to_bytes(adapter_of(4, b=0.75))
FILES = [
    "device_id",
    "device_key.next.pem",
    "device_key.pem",
    "device_key.pem.4711",
    "private_factors/run-1.safetensors",
    "private_factors/run-2.safetensors",
    "rounding_errors/run-1.safetensors",
    "updates/assignment-1.errors",
    "updates/assignment-1.json",
    "updates/assignment-1.safetensors",
]


def write_key(path: Path, identity: Identity) -> None:
    path.write_bytes(key_to_pem(identity.key))
    path.chmod(0o600)


@pytest.fixture
def key() -> Identity:
    return new_identity(first_id="0123456789abcdef" * 2)


@pytest.fixture
def old(folder: DeviceFolder, key: Identity) -> DeviceFolder:
    """A folder as the SDK before wrote it: a rotation under way, two runs, and an update to deliver."""
    write_key(folder.key_file, key)
    write_key(folder.root / "device_key.next.pem", new_identity())
    (folder.root / "device_id").write_text(f"{key.first_id}\n")
    write_key(folder.root / "device_key.pem.4711", new_identity())  # of a process that was killed over it
    for at, (kind, run) in enumerate(
        [("private_factors", "run-2"), ("private_factors", "run-1"), ("rounding_errors", "run-1")]
    ):
        path = folder.root / kind / f"{run}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"{kind} of {run}".encode())
        os.utime(path, (at, at))
    (folder.root / "updates").mkdir()
    (folder.root / "updates/assignment-1.safetensors").write_bytes(UPDATE)
    (folder.root / "updates/assignment-1.errors").write_bytes(b"rounded off")
    (folder.root / "updates/assignment-1.json").write_text(report_of(UPDATE).model_dump_json())
    return folder


def files_of_before(folder: DeviceFolder) -> list[str]:
    found = (str(path.relative_to(folder.root)) for path in folder.root.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith(("device.sqlite", "lock")))


def taken_over(folder: DeviceFolder, files_removed: int | None = None) -> None:
    """Take over, and be killed before another file than so many is removed."""
    removed: list[Path] = []

    def remove(path: Path) -> None:
        if len(removed) == files_removed:
            raise Killed
        removed.append(path)
        path.unlink()

    with closing(DeviceDatabase(folder.database)) as database:
        IdentityStore(database)
        AssignmentStore(database)
        take_over(folder, database, remove)


def check_all_is_there(folder: DeviceFolder, key: Identity) -> None:
    assert identity_in(folder).public_key == key.public_key
    assert identity_in(folder).device_id == key.first_id
    assert is_rotating(folder)
    assert stored_parts(folder) == {"update", "rounding_errors"}
    assert kept_for_runs(folder, "private_factors") == {
        "run-1": b"private_factors of run-1",
        "run-2": b"private_factors of run-2",
    }
    assert kept_for_runs(folder, "rounding_errors") == {"run-1": b"rounding_errors of run-1"}
    with closing(DeviceDatabase(folder.database)) as database:
        update = AssignmentStore(database).update()
    assert update is not None
    assert (update.tensors, update.errors) == (UPDATE, b"rounded off")


def test_files_are_in_the_database_and_gone(old: DeviceFolder, key: Identity) -> None:
    assert files_of_before(old) == FILES
    taken_over(old)
    check_all_is_there(old, key)
    assert files_of_before(old) == []
    assert not (old.root / "updates").exists()


@pytest.mark.parametrize("name", ["device_key.pem.bak", "device_key_old.pem.1", "device_key.pem.1.gz"])
def test_copy_of_a_key_that_its_owner_made_stays(old: DeviceFolder, name: str) -> None:
    write_key(old.root / name, new_identity())
    taken_over(old)
    assert files_of_before(old) == [name]


@pytest.mark.parametrize("files_removed", range(len(FILES)))
def test_process_killed_on_the_way_loses_nothing(
    old: DeviceFolder, key: Identity, files_removed: int
) -> None:
    with pytest.raises(Killed):
        taken_over(old, files_removed)
    check_all_is_there(old, key)
    taken_over(old)
    check_all_is_there(old, key)
    assert files_of_before(old) == []


def test_update_of_before_is_delivered_by_the_next_visit(
    old: DeviceFolder, service: FakeService, make_client: MakeClient
) -> None:
    for name in ("device_key.next.pem", "device_id"):
        (old.root / name).unlink()
    service.received = adapter_of(4)  # as it had sent it
    visit = make_client().run_once()
    assert visit.outcome == "accepted"
    assert service.bodies == [UPDATE]
    assert kept_for_runs(old, "rounding_errors") == {"run-1": b"rounded off"}


def test_damaged_update_of_before_is_made_anew(
    old: DeviceFolder, service: FakeService, make_client: MakeClient
) -> None:
    (old.root / "updates/assignment-1.safetensors").write_bytes(b"half")
    (old.root / "device_key.next.pem").unlink()
    (old.root / "device_id").unlink()
    assert make_client().run_once().outcome == "accepted"
    assert service.bodies != [UPDATE]
    assert not (old.root / "updates").exists()


def test_key_open_to_others_is_refused_and_kept(folder: DeviceFolder) -> None:
    write_key(folder.key_file, new_identity())
    folder.key_file.chmod(0o640)
    with pytest.raises(SettingsError, match="open to other users; got mode 0640; expected mode 0600"):
        taken_over(folder)
    assert folder.key_file.exists()


def test_damaged_key_file_is_refused_and_kept(folder: DeviceFolder, make_client: MakeClient) -> None:
    folder.key_file.write_text("no key")
    folder.key_file.chmod(0o600)
    for _ in range(2):  # and holds neither the folder nor the database after that
        with pytest.raises(SettingsError, match="holds no key"):
            make_client()
    assert folder.key_file.read_text() == "no key"


def test_key_of_another_kind_is_refused(folder: DeviceFolder) -> None:
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.key_file.write_bytes(pem)
    folder.key_file.chmod(0o600)
    with pytest.raises(SettingsError, match="another kind of key"):
        taken_over(folder)


def test_damaged_device_id_is_refused(old: DeviceFolder) -> None:
    (old.root / "device_id").write_text("not an id")
    with pytest.raises(SettingsError, match="holds no device id; got not an id"):
        taken_over(old)
    assert files_of_before(old) == FILES


def test_second_key_is_refused_and_the_device_stays_who_it_is(folder: DeviceFolder) -> None:
    first = identity_in(folder)
    write_key(folder.key_file, new_identity())
    with pytest.raises(SettingsError, match="this device has a key already"):
        taken_over(folder)
    assert identity_in(folder).public_key == first.public_key
