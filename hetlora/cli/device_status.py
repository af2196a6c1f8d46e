"""`hetlora device status`: what a device folder holds of the assignment under way."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

from hetlora.cli.folder_option import FolderOption
from hetlora.cli.output import JsonFlag, print_json, say
from hetlora.cli.parts import part
from hetlora.errors import SettingsError


def status(
    folder: FolderOption,
    as_json: JsonFlag = False,
) -> None:
    """Tell how far this device is with its assignment, and what lies on its disk of it; asks no service.

    It may be asked while the device runs.

    Example: `hetlora device status --folder device/`
    """
    with part("edge"):
        from edge_sdk.device_database import DeviceDatabase
        from edge_sdk.folder import DeviceFolder
        from edge_sdk.identity.identity_store import IdentityStore
        from edge_sdk.session.assignment_store import AssignmentStore
    path = DeviceFolder(folder).database
    if not path.is_file():
        raise SettingsError("no device runs in this folder", got=folder, expected=f"{path.name} in it")
    with closing(DeviceDatabase(path)) as database:
        device_id = IdentityStore(database).identity().device_id
        found = AssignmentStore(database).status()
    if as_json:
        print_json({"device_id": device_id, "assignment": None if found is None else asdict(found)})
        return
    say(f"device {device_id}")
    if found is None:
        say("no assignment yet")
        return
    say(
        f"assignment {found.assignment_id} of run {found.run_id}: {found.progress}",
        f"{found.trained_steps} of {found.steps} steps are trained and kept",
        *(f"{name}: {size} bytes" for name, size in found.stored_bytes.items()),
    )
