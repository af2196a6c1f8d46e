"""Whether the store holds what runs need: a database restored without its objects looks well otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.revisions import engine_of
from aggregator_service.settings import Settings
from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.store import Store
from aggregator_service.storage.tables import AdapterVersionRow, RunRow
from hetlora.errors import HetloraError, UnavailableError
from hetlora.manifest import parse_manifest
from hetlora.states import RunState, is_final

NOT_ENDED: Final = tuple(state for state in RunState if not is_final(state))
MAX_TOLD: Final = 5


def check_needed_objects(settings: Settings) -> int:
    """Look for the objects of all runs that have not ended: bundles, and the newest adapters.

    Of files the size is looked at; manifests and adapters are hashed. What devices are sent is made of these.

    Returns:
        How many runs have all of theirs.

    Raises:
        SettingsError, UnavailableError: the database cannot be read, as `revisions_of` tells it; the store
            does not answer; objects are missing or damaged.
    """
    objects = Store(settings.data_dir, settings.object_store_url).blobs("objects")
    with engine_of(settings) as engine, Session(engine) as session:
        runs = session.scalars(select(RunRow).where(RunRow.state.in_(NOT_ENDED))).all()
        newest = {run.adapter_version for run in runs}
        versions = session.scalars(select(AdapterVersionRow).where(AdapterVersionRow.id.in_(newest))).all()
    # With no transaction open, which PostgreSQL would end: to hash what is in a bucket takes its time.
    bundles = {digest for run in runs for digest in (run.bundle, *run.settings.variants)}
    faults = [fault for digest in bundles for fault in _of_bundle(objects, digest)]
    faults += [fault for version in versions for fault in _of_version(objects, version)]
    if faults:
        more = f", and {len(faults) - MAX_TOLD} more" if len(faults) > MAX_TOLD else ""
        raise UnavailableError(
            "objects that runs need are missing or damaged",
            got="; ".join(faults[:MAX_TOLD]) + more,
            expected="the objects of the same backup as the database, or of a later one",
        )
    return len(runs)


def _of_bundle(objects: Blobs, digest: str) -> Iterator[str]:
    try:
        manifest = parse_manifest(objects.read(digest))
    except UnavailableError:
        raise
    except HetloraError as error:
        yield f"manifest of the bundle {digest}: {error}"
        return
    for name, entry in manifest.files.items():
        size_bytes = objects.size_bytes(entry.sha256)
        if size_bytes != entry.size_bytes:
            has = "missing" if size_bytes is None else f"{size_bytes} bytes"
            yield f"{name} of the bundle {digest}: {has} instead of {entry.size_bytes} bytes"


def _of_version(objects: Blobs, row: AdapterVersionRow) -> Iterator[str]:
    for sha256 in filter(None, (row.sha256, row.frozen_sha256, row.state_sha256)):
        try:
            objects.verify(f"object {sha256}", sha256)
        except UnavailableError:
            raise
        except HetloraError as error:
            yield f"adapter {row.id}: {error}"
