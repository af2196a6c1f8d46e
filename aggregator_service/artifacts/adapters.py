"""Global adapters of a run: the initial one, the newest, and the states of the rule behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from aggregator_service.aggregation.optimizers import with_optimizer
from aggregator_service.aggregation.private_rule import PrivateRule
from aggregator_service.aggregation.rule import GlobalState, Handout, Rule
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, factors_of, stacked, unstacked
from aggregator_service.artifacts.bundles import read_spec
from aggregator_service.artifacts.global_state import state_from_tensors, state_tensors
from aggregator_service.artifacts.objects import put_tensors
from aggregator_service.service import Service
from aggregator_service.storage.blobs import reading_own
from aggregator_service.storage.identifiers import version_id_of
from aggregator_service.storage.tables import AdapterVersionRow, RunRow
from aggregator_service.storage.transitions import create
from hetlora.adapter import initial_adapter
from hetlora.algebra import extended
from hetlora.manifest import Manifest
from hetlora.messages.common import ObjectRef
from hetlora.messages.management import RunSettings
from hetlora.states import AdapterVersionState
from hetlora.stored_tensors import stored_tensors
from hetlora.tensors import adapter_from_bytes, factor_tensors, read_adapter, to_tensors


@dataclass(frozen=True, slots=True)
class StoredState:
    """A global state on disk: the adapters that it comes to, and the rest, if there is any."""

    adapter: ObjectRef
    frozen: ObjectRef | None
    state_sha256: str | None
    figures: dict[str, float]


def initial_state(service: Service, manifest: Manifest, settings: RunSettings) -> GlobalState:
    """What a run starts from: PEFT's initialisation at the run's rank, from its seed, as the rule takes it.

    The leading ranks are those of the bundle's own adapter, where it has one.

    Raises:
        RankOutOfRange: that has a higher rank than the run.
        MalformedTensors, SpecMismatch: that is no adapter of the bundle.
    """
    fresh = initial_adapter(manifest.adapter, settings.max_rank, np.random.default_rng(settings.seed))
    if manifest.initial_adapter is not None:
        data = service.objects.read(manifest.files[manifest.initial_adapter].sha256)
        fresh = extended(adapter_from_bytes(data, manifest.adapter), fresh)
    return first_state(settings.rule, fresh)


def opened(
    settings: RunSettings, state: GlobalState, rank_total: int = 0, noise_key: bytes = b""
) -> Rule[Any]:
    """A round of a run, on the state before it; with privacy it is finished with a `noise_key` alone.

    Raises:
        SettingsError: the rule and the server optimizer do not go together.
    """
    rule = open_rule(settings.rule, state, rank_total)
    if settings.privacy is not None:
        rule = PrivateRule.around(rule, settings.privacy, noise_key)
    return with_optimizer(rule, settings.server_optimizer)


def store_state(service: Service, settings: RunSettings, state: GlobalState) -> StoredState:
    """Put a state on disk.

    Raises:
        NonFiniteValues: a number of its adapter passes float32.
    """
    shown = _shown(settings, state)
    alone = state.adapter.rank <= state.rank and state.frozen is None and not state.tensors
    return StoredState(
        put_tensors(service, to_tensors(unstacked(shown.received))),
        put_frozen(service, shown.frozen),
        None if alone else put_tensors(service, state_tensors(state)).sha256,
        {name: value for name, value in state.figures.items() if math.isfinite(value)},
    )


def _shown(settings: RunSettings, state: GlobalState) -> Handout:
    """The global adapter at the run's rank: the state's own, or what a device gets of a wider one."""
    if state.adapter.rank <= state.rank:
        return Handout(state.adapter, state.frozen)
    return opened(settings, state).distribute(state.rank)


def put_frozen(service: Service, frozen: StackedAdapter | None) -> ObjectRef | None:
    """Put an adapter of any rank on disk, if there is one."""
    return None if frozen is None else put_tensors(service, factor_tensors(factors_of(frozen)))


def read_state(service: Service, run: RunRow, version: AdapterVersionRow) -> GlobalState:
    """The state that a version stands for.

    Raises:
        ServiceFailed: see `reading_own`.
    """
    spec, rank, round_index = read_spec(service, run.bundle), run.settings.max_rank, version.round_index + 1
    stored = service.objects.opened(version.state_sha256 or version.sha256)
    with reading_own("a global adapter"), stored as file:
        if version.state_sha256 is None:
            return GlobalState(stacked(read_adapter(file, spec)), rank, round_index)
        return state_from_tensors(stored_tensors(file), spec, rank, round_index)


def add_version(
    session: Session, run: RunRow, stored: StoredState, *, round_index: int, update_count: int, now: datetime
) -> AdapterVersionRow:
    """Make a stored state the newest version of its run; version 0 is the initial one."""
    version = AdapterVersionRow(
        id=version_id_of(run.id, round_index),
        state=AdapterVersionState.CANDIDATE,
        run_id=run.id,
        round_index=round_index,
        sha256=stored.adapter.sha256,
        size_bytes=stored.adapter.size_bytes,
        frozen_sha256=stored.frozen.sha256 if stored.frozen else None,
        frozen_bytes=stored.frozen.size_bytes if stored.frozen else None,
        state_sha256=stored.state_sha256,
        figures=stored.figures,
        update_count=update_count,
        created_at=now,
    )
    reason = "initial adapter" if round_index < 0 else f"round {round_index} of {update_count} updates"
    create(session, version, reason, now)
    run.adapter_version = version.id
    return version
