"""Runs: made from a bundle for a population, then started, paused, resumed, stopped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.artifacts.adapters import add_version, initial_state, opened, store_state
from aggregator_service.artifacts.bundles import get_bundle, read_manifest
from aggregator_service.operators.idempotency import IdempotencyKey, begin, made_before
from aggregator_service.privacy.budgets import check_privacy
from aggregator_service.rounds.evaluations import stop_evaluations
from aggregator_service.rounds.opening import open_next
from aggregator_service.rounds.rounds import stop_rounds
from aggregator_service.rounds.run_checks import check_settings
from aggregator_service.service import Service
from aggregator_service.storage.identifiers import new_id
from aggregator_service.storage.locks import lock_run
from aggregator_service.storage.tables import BundleRow, DeviceRow, PopulationRow, RunRow
from aggregator_service.storage.transitions import create, move
from hetlora.errors import NotFound, SettingsError, StateConflict
from hetlora.manifest import Manifest
from hetlora.messages.ending import Schedule
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import RunState
from hetlora.variants import check_variant

OPERATOR: Final = "operator"  # why a run moved
RunVerb = Literal["start", "pause", "resume", "stop"]


def create_run(service: Service, message: RunCreate, asked: IdempotencyKey | None = None) -> str:
    """Make a run in state draft, with its initial adapter, and answer its id.

    Raises:
        NotFound: no such population, bundle or variant, or no such trusted device in the population.
        SettingsError: settings that a bundle, or the rule, cannot serve.
        VariantMismatch: a variant of another adapter, see `check_variant`.
        RankOutOfRange: the adapter that the bundle begins with has a higher rank than the run.
        IdempotencyKeyReused: see `idempotency.begin`.
        StateConflict: the population has another run of this name.
    """
    now = service.clock()
    with service.database.read() as session:
        made = made_before(session, asked, message, now) or _named_before(session, message)
        if made is not None:
            return made
        _check_asked(session, message, now)
    manifest = read_manifest(service, message.bundle)
    _check_variants(service, message, manifest)
    state = initial_state(service, manifest, message.settings)
    rule = opened(message.settings, state)
    check_settings(message.settings, rule)
    initial = store_state(service, message.settings, state)
    with service.database.write() as session:
        attempt = begin(session, asked, message, now)
        # Who makes a run of the population, or sets its budget, waits here: a name is given once.
        session.get_one(PopulationRow, message.population, with_for_update={"key_share": True})
        made = attempt.made or _named_before(session, message)
        if made is not None:
            return made
        check_privacy(session, message.population, message.settings)
        run = _draft(message, rule.trained_rank, now)
        create(session, run, "created", now)
        add_version(session, run, initial, round_index=-1, update_count=0, now=now)
        attempt.note(run.id)
        return run.id


def _check_asked(session: Session, message: RunCreate, now: datetime) -> None:
    """Raise unless all that a run names is there, and its settings are for them."""
    if message.cloned_from is not None:
        get_run(session, message.cloned_from)
    if session.get(PopulationRow, message.population) is None:
        raise NotFound("no such population", got=message.population)
    _check_trusted(session, message)
    _check_schedule(message.settings, now)
    check_privacy(session, message.population, message.settings)
    for digest in (message.bundle, *message.settings.variants):
        _check_bundle(message.settings, get_bundle(session, digest))


def _draft(message: RunCreate, trained_rank: int | None, now: datetime) -> RunRow:
    schedule = message.settings.schedule or Schedule()
    return RunRow(
        id=new_id(now),
        state=RunState.DRAFT,
        population=message.population,
        bundle=message.bundle,
        settings=message.settings,
        trained_rank=trained_rank,
        rounds_committed=0,
        created_at=now,
        name=message.name,
        request_sha256=message.meaning_sha256,
        cloned_from=message.cloned_from,
        starts_at=schedule.start_at,
        stops_at=schedule.stop_at,
    )


def _named_before(session: Session, message: RunCreate) -> str | None:
    """The run that has the name already, if it is just this one.

    Raises:
        StateConflict: it is another.
    """
    if message.name is None:
        return None
    of_population = RunRow.population == message.population
    run = session.scalar(select(RunRow).where(of_population, RunRow.name == message.name))
    if run is None:
        return None
    if run.request_sha256 != message.meaning_sha256:
        raise StateConflict(
            "the population has another run of this name",
            got=f"{message.name}, asked for as {message.meaning_sha256[:12]}",
            expected=f"run {run.id}, {(run.request_sha256 or '')[:12]}; or a new name",
        )
    return run.id


def _check_schedule(settings: RunSettings, now: datetime) -> None:
    stop_at = None if settings.schedule is None else settings.schedule.stop_at
    if stop_at is not None and stop_at <= now:
        raise SettingsError("schedule.stop_at has passed", got=stop_at, expected=f"a moment after {now}")


def _check_trusted(session: Session, message: RunCreate) -> None:
    trusted = message.settings.defence.trusted_device
    if trusted is None:
        return
    device = session.get(DeviceRow, trusted)
    if device is None or device.population != message.population:
        raise NotFound("no such trusted device in the population", got=trusted)


def _check_bundle(settings: RunSettings, bundle: BundleRow) -> None:
    for name, got, limit in (
        ("max_rank", settings.max_rank, bundle.max_rank),
        ("training.max_tokens", settings.training.max_tokens, bundle.max_tokens),
    ):
        if got > limit:
            raise SettingsError(
                f"{name} of the run is above the bundle's", got=got, expected=f"up to {limit}"
            )


def _check_variants(service: Service, message: RunCreate, own: Manifest) -> None:
    settings = message.settings
    if message.bundle in settings.variants:
        raise SettingsError("the run's own bundle is among its variants", got=message.bundle)
    for digest in settings.variants:
        variant = read_manifest(service, digest)
        check_variant(own, variant)
        rank = variant.fixed_rank
        if rank is not None and not settings.min_rank <= rank <= settings.max_rank:
            raise SettingsError(
                "a variant is stamped for a rank that the run does not have",
                got=f"rank {rank} of bundle {digest[:12]}",
                expected=f"{settings.min_rank} to {settings.max_rank}",
            )


def get_run(session: Session, run_id: str) -> RunRow:
    """A run by its id.

    Raises:
        NotFound: no such run.
    """
    run = session.get(RunRow, run_id)
    if run is None:
        raise NotFound("no such run", got=run_id)
    return run


def start_run(session: Session, run: RunRow, now: datetime, reason: str = OPERATOR) -> None:
    """Start a run in state draft with its first round."""
    _expect(run, RunState.DRAFT)
    move(session, run, RunState.RUNNING, reason, now)
    open_next(session, run, now)


def _pause(session: Session, run: RunRow, now: datetime) -> None:
    """Make no new offers; work that is out may be handed in, and its round commits."""
    move(session, run, RunState.PAUSED, OPERATOR, now)


def _resume(session: Session, run: RunRow, now: datetime) -> None:
    """Go on with a paused run."""
    _expect(run, RunState.PAUSED)
    move(session, run, RunState.RUNNING, OPERATOR, now)
    open_next(session, run, now)


def stop_run(session: Session, run: RunRow, now: datetime, reason: str = OPERATOR) -> None:
    """End a run, and the rounds and evaluations that it is in."""
    move(session, run, RunState.STOPPED, reason, now)
    stop_rounds(session, run, now)
    stop_evaluations(session, run, now)


def _expect(run: RunRow, state: RunState) -> None:
    """Start and resume lead to one state, but not from one."""
    if run.state is not state:
        raise StateConflict(
            f"run {run.id} cannot do this now",
            got=f"state {run.state}: {run.reason}",
            expected=f"state {state}",
        )


_VERBS: Final[dict[RunVerb, Callable[[Session, RunRow, datetime], None]]] = {
    "start": start_run,
    "pause": _pause,
    "resume": _resume,
    "stop": stop_run,
}


def change_run(service: Service, run_id: str, verb: RunVerb) -> None:
    """Start, pause, resume or stop a run.

    Raises:
        NotFound: no such run.
        StateConflict: the run's state does not allow the verb.
    """
    now = service.clock()
    with service.database.write() as session:
        _VERBS[verb](session, lock_run(session, run_id), now)
