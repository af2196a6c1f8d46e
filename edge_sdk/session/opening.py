"""How a client is put together: what its folder keeps, its line and example stores, and what it works with.

What is opened goes into an `ExitStack`, which closes it, also where what comes after cannot be opened.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from edge_sdk.adapters.adapters import Adapters
from edge_sdk.adapters.policy import Adoption
from edge_sdk.conditions import Watch
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.events import Downloaded, Event
from edge_sdk.examples import ExampleStore, StoreOptions, open_stores
from edge_sdk.folder import DeviceFolder, lock_folder, open_folder
from edge_sdk.identity.identity_store import IdentityStore
from edge_sdk.planning.capabilities import Capabilities
from edge_sdk.planning.corrections import Corrections
from edge_sdk.runtimes import files_opened_by, runtime_for
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.equipment import Equipment
from edge_sdk.transport.bundles import BundleCache
from edge_sdk.transport.downloads import Downloads
from edge_sdk.transport.service import DeviceService
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.uploads import Uploads
from edge_sdk.transport.verified_files import VerifiedFiles
from edge_sdk.transport.way import Way


@dataclass(frozen=True, slots=True)
class Kept:
    """A device folder that is held against other clients, and what its database keeps."""

    folder: DeviceFolder
    database: DeviceDatabase
    identities: IdentityStore
    assignments: AssignmentStore
    corrections: Corrections
    verified_files: VerifiedFiles


def open_kept(root: Path, clock: Callable[[], float], opened: ExitStack) -> Kept:
    """Hold the folder, make it where it is missing, and open its database.

    Raises:
        SettingsError: the folder cannot be used, or is in use.
        DiskFull, StoreDamaged, UnavailableError: see `DeviceDatabase`.
    """
    folder = open_folder(root)
    opened.callback(lock_folder(folder).release)
    database = opened.enter_context(closing(DeviceDatabase(folder.database)))
    return Kept(
        folder,
        database,
        IdentityStore(database),
        AssignmentStore(database),
        Corrections(database, clock=clock),
        VerifiedFiles(database, folder.bundles, clock=clock),
    )


def open_line(
    service_url: str, kept: Kept, way: Way, clock: Callable[[], float], opened: ExitStack
) -> Transport:
    """Requests to the service, signed with the key that the folder keeps, or with a new one."""
    transport = Transport(service_url, kept.identities.identity(), way, clock=clock)
    opened.callback(transport.close)
    return transport


def open_examples(
    kept: Kept, held_out_share: float | None, opened: ExitStack, **options: Unpack[StoreOptions]
) -> tuple[ExampleStore, ExampleStore]:
    """The store to train on and the one to evaluate on; see `open_stores`."""
    files = kept.folder.examples_file, kept.folder.held_out_file
    examples, held_out = open_stores(*files, held_out_share, **options)
    opened.callback(held_out.close)
    opened.callback(examples.close)
    return examples, held_out


def equip(
    kept: Kept,
    transport: Transport,
    examples: ExampleStore,
    held_out: ExampleStore,
    *,
    upload_part_bytes: int,
    adoption: Adoption,
    measured: Capabilities,
    runtime: RuntimeFactory | None,
    threads: int | None,
    watch: Watch,
    on_event: Callable[[Event], None],
) -> Equipment:
    """What assignments are worked on with.

    Raises:
        SettingsError: a size of parts that is none.
    """
    folder = kept.folder
    adapters = Adapters(folder, threads=threads)
    downloads = Downloads(transport, folder.downloads, lambda name, size: on_event(Downloaded(name, size)))
    return Equipment(
        service=DeviceService(transport),
        downloads=downloads,
        uploads=Uploads(transport, part_bytes=upload_part_bytes),
        bundles=BundleCache(
            folder.bundles,
            downloads,
            kept.verified_files,
            files_of=lambda manifest: files_opened_by(runtime or runtime_for(manifest), manifest),
            needed=lambda: adapters.index().bundle_digests(),
        ),
        folder=folder,
        database=kept.database,
        assignments=kept.assignments,
        examples=examples,
        held_out=held_out,
        adapters=adapters,
        adoption=adoption,
        capabilities=measured.report,
        corrections=kept.corrections,
        runtime=runtime,
        threads=threads,
        watch=watch,
        on_event=on_event,
    )
