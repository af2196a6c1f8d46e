"""Global adapters of a run: the initial one, the newest, and their truncations."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from sqlalchemy.orm import Session

from aggregator_service.bundles import read_spec
from aggregator_service.service import Service, reading_own
from aggregator_service.storage.tables import AdapterVersionRow, RunRow, TruncatedAdapterRow
from aggregator_service.transitions import create
from hetlora.adapter import initial_adapter
from hetlora.algebra import extended, truncate
from hetlora.manifest import Manifest
from hetlora.messages.common import ObjectRef
from hetlora.messages.management import RunSettings
from hetlora.states import AdapterVersionState
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes


def store_initial(service: Service, manifest: Manifest, settings: RunSettings) -> ObjectRef:
    """Store what a run starts from: PEFT's initialisation at the run's rank, from its seed.

    The leading ranks are those of the bundle's own adapter, where it has one.

    Raises:
        RankOutOfRange: that has a higher rank than the run.
        MalformedTensors, SpecMismatch: that is no adapter of the bundle.
    """
    fresh = initial_adapter(manifest.adapter, settings.max_rank, np.random.default_rng(settings.seed))
    if manifest.initial_adapter is not None:
        data = service.objects.read(manifest.files[manifest.initial_adapter].sha256)
        fresh = extended(adapter_from_bytes(data, manifest.adapter), fresh)
    return service.objects.put(adapter_to_bytes(fresh))


def add_version(
    session: Session, run: RunRow, adapter: ObjectRef, *, round_index: int, update_count: int, now: datetime
) -> AdapterVersionRow:
    """Make a stored adapter the newest version of its run; version 0 is the initial one."""
    version = AdapterVersionRow(
        id=f"{run.id}-v{round_index + 1:06}",
        state=AdapterVersionState.CANDIDATE,
        run_id=run.id,
        round_index=round_index,
        sha256=adapter.sha256,
        size_bytes=adapter.size_bytes,
        update_count=update_count,
        created_at=now,
    )
    reason = "initial adapter" if round_index < 0 else f"round {round_index} of {update_count} updates"
    create(session, version, reason, now)
    run.adapter_version = version.id
    return version


def truncated(service: Service, version_id: str, rank: int) -> ObjectRef:
    """A version cut to `rank` (HetLoRA's distribution), stored once and found again.

    Raises:
        ServiceFailed: see `reading_own`.
    """
    with service.database.read() as session:
        stored = session.get(TruncatedAdapterRow, (version_id, rank))
        if stored is not None:
            return ObjectRef(sha256=stored.sha256, size_bytes=stored.size_bytes)
        version = session.get_one(AdapterVersionRow, version_id)
        bundle = session.get_one(RunRow, version.run_id).bundle
    spec = read_spec(service, bundle)
    with reading_own("a global adapter"):
        adapter = adapter_from_bytes(service.objects.read(version.sha256), spec)
    ref = service.objects.put(adapter_to_bytes(truncate(adapter, rank)))
    with service.database.write() as session:
        session.merge(
            TruncatedAdapterRow(version=version_id, rank=rank, sha256=ref.sha256, size_bytes=ref.size_bytes)
        )
    return ref
