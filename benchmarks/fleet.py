"""A real service and real devices, each in its own process on loopback."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.processes import COMMAND, Process, Service
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder, open_folder
from edge_sdk.identity.identity import key_to_pem
from edge_sdk.identity.identity_store import IdentityStore, put_identity
from hetlora.bundle import Bundle
from hetlora.errors import ServiceFailed
from hetlora.messages.device import CapabilityReport
from hetlora.states import RunState, is_final

POPULATION: Final = "fleet"
# Devices on one machine wait for each other and may ask often; half of this is added to a round on average.
RETRY_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class DeviceSetup:
    """One simulated device: its name, what it can do, and the (text, label) rows that it holds, or holds out.

    `key_secret` makes its key, and so its batches, the same each time; None draws a new key.
    """

    name: str
    capabilities: CapabilityReport
    examples: Sequence[tuple[str, str]]
    key_secret: str | None = None
    held_out: Sequence[tuple[str, str]] = ()


class Fleet:
    """One service with one population and one published bundle, and the devices that are started in it.

    Use as a context manager; leaving it stops every process. `work` holds all their files.
    """

    def __init__(self, work: Path, bundle: Bundle) -> None:
        self.work, self.bundle = work, bundle
        pace = {
            "HETLORA_LEAST_RETRY_SECONDS": str(RETRY_SECONDS),
            "HETLORA_MOST_RETRY_SECONDS": str(RETRY_SECONDS),
        }
        self.service = Service(work / "service", work / "service.log", pace)
        self.devices: dict[str, Process] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.service)
            self.operator = stack.enter_context(self.service.operator())
            self.enrolment_token = self.operator.create_population(POPULATION).enrolment_token
            self.operator.publish_bundle(self.bundle)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for device in self.devices.values():
            device.ask_to_stop()  # all at once, before each is waited for
        self._stack.close()

    def start_device(self, setup: DeviceSetup, *, threads: int = 1, python: Path | None = None) -> Process:
        """Start `hetlora device run` for one simulated device, with another interpreter if given."""
        own = open_folder(self.work / setup.name)
        folder = own.root
        examples, profile = folder / "examples.json", folder / "profile.json"
        examples.write_text(json.dumps(setup.examples))
        profile.write_text(setup.capabilities.model_dump_json())
        if setup.key_secret is not None:
            _put_key(own, setup.key_secret)
        command = [*COMMAND, "device", "run", "--url", self.service.url, "--population", POPULATION]
        command += ["--folder", str(folder), "--name", setup.name, "--examples", str(examples)]
        if setup.held_out:
            kept = folder / "held_out.json"
            kept.write_text(json.dumps(setup.held_out))
            command += ["--held-out", str(kept)]
        command += ["--profile", str(profile), "--threads", str(threads)]
        if python is not None:
            command[0] = str(python)
        # The token by environment: a command line can be read by every user of the machine.
        token = {"HETLORA_ENROLMENT_TOKEN": self.enrolment_token}
        process = self._stack.enter_context(Process(command, folder / "log.txt", token))
        self.devices[setup.name] = process
        return process

    def check(self) -> None:
        """Raise ServiceFailed with the end of its log if a process has died."""
        for name, process in {"service": self.service, **self.devices}.items():
            if not process.running:
                raise ServiceFailed(f"the process of {name} ended", got=process.log.read_text()[-800:])

    def await_end(self, run_id: str, on_commit: Callable[[int], None] = lambda _: None) -> None:
        """Wait until a run has all its rounds; `on_commit` is told how many it has, whenever that changes.

        Raises:
            ServiceFailed: a process died, or the run did not complete.
        """
        committed = 0
        while not is_final((run := self.operator.run(run_id)).state):
            self.check()
            if run.rounds_committed > committed:
                committed = run.rounds_committed
                on_commit(committed)
            time.sleep(_POLL_SECONDS)
        if run.state is not RunState.COMPLETED:
            raise ServiceFailed("the run did not complete", got=f"{run.state}: {run.reason}")


def _put_key(folder: DeviceFolder, secret: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(secret.encode()).digest())
    with closing(DeviceDatabase(folder.database)) as database:
        IdentityStore(database)  # makes its table
        with database.writing() as rows:
            put_identity(rows, key_to_pem(key), None, None)
