"""A round whose worker died in the middle of it: the next one goes on from there, to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from fake_clock import FakeClock
from large_round import Death, Watched, add_large_round, watched
from mortal_service import count_steps, live_and_die
from sqlalchemy import select

from aggregator_service.aggregation.tree import LEAF_SIZE
from aggregator_service.artifacts.objects import drop_orphans
from aggregator_service.rounds.closing import leave_out
from aggregator_service.rounds.runs import change_run
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import (
    AdapterVersionRow,
    AssignmentRow,
    CheckpointRow,
    RoundRow,
    RunRow,
)
from aggregator_service.worker.worker import tick

CopyOf = Callable[[Settings], AbstractContextManager[Settings]]
# Leaf 3 of 4 is done and not kept when the process dies.
COUNT, KEPT = 3 * LEAF_SIZE + 30, 2
DONE = KEPT * LEAF_SIZE
CLIPPED = {"defence": {"clip": True}}


def prepare(settings: Settings, clock: FakeClock, bundle: str, **of_run: object) -> list[str]:
    """A round that waits to be aggregated, in a service that is stopped; its updates in the tree's order."""
    with closing(open_service(settings, clock)) as service:
        add_large_round(service, bundle, COUNT, **of_run)
        with service.database.read() as session:
            return sorted(map(str, session.scalars(select(AssignmentRow.update_sha256))))


def die_in_the_middle(settings: Settings, clock: FakeClock, notes: Path) -> None:
    with closing(open_service(settings, clock)) as service:
        with pytest.raises(Death):
            tick(watched(service, Watched(notes, last=KEPT)))
        assert [row.leaf_count for row in checkpoints(service)] == [1, KEPT]


def checkpoints(service: Service) -> list[CheckpointRow]:
    with service.database.read() as session:
        return [*session.scalars(select(CheckpointRow).order_by(CheckpointRow.leaf_count))]


def lose(service: Service, *updates: str) -> None:
    with service.database.read() as session:
        folder = service.updates(session.scalars(select(RoundRow.id)).one())
    for sha256 in updates:
        folder.remove(sha256)


def finish(settings: Settings, clock: FakeClock, engine: Watched, *lost: str) -> tuple[object, ...]:
    """What the round comes to: the new version's objects, and the weights of its updates."""
    with closing(open_service(settings, clock)) as service:
        with (
            service.database.write() as session
        ):  # as if by `free_abandoned`: the dead may have been this process
            session.scalars(select(RoundRow)).one().claimed_until = None
        lose(service, *lost)
        if lost:
            tick(watched(service, engine))  # from now on it is looked for
            clock.advance(60)
        for _ in range(1 + len(lost)):
            tick(watched(service, engine))
        with service.database.read() as session:
            (version,) = session.scalars(select(AdapterVersionRow).where(AdapterVersionRow.round_index == 0))
            weights = select(AssignmentRow.id, AssignmentRow.aggregation_weight).order_by(AssignmentRow.id)
            return version.sha256, version.state_sha256, version.update_count, session.execute(weights).all()


def undisturbed(
    settings: Settings, clock: FakeClock, copy_of: CopyOf, notes: Path, *lost: str
) -> tuple[object, ...]:
    """What it comes to where no process dies."""
    with copy_of(settings) as alone:
        return finish(alone, clock, Watched(notes), *lost)


KILLED = """
import sys
from pathlib import Path
from fake_clock import FakeClock
from large_round import Watched, kill, watched
from aggregator_service.service import open_service
from aggregator_service.settings import Settings
from aggregator_service.worker.worker import tick
if __name__ == "__main__":
    notes, workers, last = sys.argv[1:]
    engine = Watched(Path(notes), int(workers), int(last), kill)
    tick(watched(open_service(Settings(), FakeClock()), engine))
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_round_of_a_killed_process_is_taken_up_where_it_was(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf, tmp_path: Path, workers: int
) -> None:
    updates = prepare(settings, clock, bundle)
    expected = undisturbed(settings, clock, copy_of, tmp_path / "undisturbed")
    (tmp_path / "killed.py").write_text(KILLED)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HETLORA_DATA_DIR": str(settings.data_dir),
    }
    if settings.database_url is not None:
        environment["HETLORA_DATABASE_URL"] = settings.database_url.get_secret_value()
    command = [sys.executable, "killed.py", str(tmp_path / "first"), str(workers), str(KEPT)]
    killed = subprocess.run(command, cwd=tmp_path, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert {*updates[:DONE]} <= {*Watched(tmp_path / "first").read()}
    engine = Watched(tmp_path / "second", workers)
    assert finish(settings, clock, engine) == expected
    assert sorted(engine.read()) == updates[DONE:]


@pytest.mark.parametrize("of_run", [{}, CLIPPED], ids=["plain", "clipped"])
def test_leaves_that_are_kept_are_not_read_again(
    settings: Settings,
    bundle: str,
    clock: FakeClock,
    copy_of: CopyOf,
    tmp_path: Path,
    of_run: dict[str, object],
) -> None:
    updates = prepare(settings, clock, bundle, **of_run)
    expected = undisturbed(settings, clock, copy_of, tmp_path / "undisturbed")
    die_in_the_middle(settings, clock, tmp_path / "first")
    engine = Watched(tmp_path / "second")
    assert finish(settings, clock, engine) == expected
    assert engine.read() == updates[DONE:]


@pytest.mark.parametrize("harmed", [1, KEPT])
def test_checkpoint_that_cannot_be_read_is_computed_again(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf, tmp_path: Path, harmed: int
) -> None:
    updates = prepare(settings, clock, bundle)
    expected = undisturbed(settings, clock, copy_of, tmp_path / "undisturbed")
    die_in_the_middle(settings, clock, tmp_path / "first")
    with closing(open_service(settings, clock)) as service:
        torn, *lost = [service.objects.path(row.sha256) for row in checkpoints(service)[::-1][:harmed]]
    torn.write_bytes(torn.read_bytes()[:-1])
    for path in lost:
        path.unlink()
    engine = Watched(tmp_path / "second")
    assert finish(settings, clock, engine) == expected
    assert engine.read() == updates[DONE - harmed * LEAF_SIZE :]


@pytest.mark.parametrize(("of_run", "reused"), [({}, LEAF_SIZE), (CLIPPED, 0)], ids=["plain", "clipped"])
def test_only_what_follows_from_the_same_updates_is_used(
    settings: Settings,
    bundle: str,
    clock: FakeClock,
    copy_of: CopyOf,
    tmp_path: Path,
    of_run: dict[str, object],
    reused: int,
) -> None:
    updates = prepare(settings, clock, bundle, **of_run)
    lost = updates.pop(LEAF_SIZE + 5)  # of the second leaf; limits of clipping follow from all
    expected = undisturbed(settings, clock, copy_of, tmp_path / "undisturbed", lost)
    die_in_the_middle(settings, clock, tmp_path / "first")
    with closing(open_service(settings, clock)) as service, service.database.write() as session:
        run, row = (session.scalars(select(table)).one() for table in (RunRow, RoundRow))
        its_own = select(AssignmentRow).where(AssignmentRow.update_sha256 == lost)
        leave_out(session, run, row, session.scalars(its_own).all(), clock())
    engine = Watched(tmp_path / "second")
    assert finish(settings, clock, engine) == expected
    assert engine.read() == updates[reused:]


def test_checkpoints_go_with_their_round(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf, tmp_path: Path
) -> None:
    prepare(settings, clock, bundle)
    die_in_the_middle(settings, clock, tmp_path / "first")
    with copy_of(settings) as alone, closing(open_service(alone, clock)) as service:
        kept = checkpoints(service)
        with service.database.read() as session:
            run_id = session.scalars(select(RunRow.id)).one()
        clock.advance(settings.keep_orphans_seconds + 1)
        drop_orphans(service)
        assert all(service.objects.size_bytes(row.sha256) for row in kept)  # they are named
        change_run(service, run_id, "stop")
        assert checkpoints(service) == []
        clock.advance(settings.keep_orphans_seconds + 1)  # since they were seen to be named
        drop_orphans(service)
        assert not any(service.objects.size_bytes(row.sha256) for row in kept)
    finish(settings, clock, Watched(tmp_path / "second"))
    with closing(open_service(settings, clock)) as service:
        assert checkpoints(service) == []


@pytest.mark.slow
def test_round_survives_a_death_at_any_step_of_a_checkpoint(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf, tmp_path: Path
) -> None:
    with closing(open_service(settings, clock)) as service:
        add_large_round(service, bundle, LEAF_SIZE + 1)
    expected = undisturbed(settings, clock, copy_of, tmp_path / "undisturbed")

    def aggregate(service: Service) -> None:
        tick(watched(service, Watched(tmp_path / "notes")))

    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, [aggregate])
    assert steps > 20
    for last in range(steps):
        with copy_of(settings) as alone:
            live_and_die(alone, clock, [aggregate], last)
            assert finish(alone, clock, Watched(tmp_path / "notes")) == expected
