"""How far a device is with its assignment, kept in its database."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
from device_tables import damage_part, kept_for_runs, stored_parts, tables
from fake_bundle import ref_of
from fake_service import FakeService, report_of
from store_files import bytes_in, disk_of

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.session.assignment_store import AssignmentStore, Terms
from edge_sdk.session.checkpoints import Checkpoint, Trained
from edge_sdk.session.plans import Received
from edge_sdk.session.progress import LEGAL_MOVES, Progress, is_legal, is_over
from edge_sdk.session.updates import Update
from hetlora.errors import DiskFull, StateConflict
from hetlora.messages.device import Offer, Plan

ADAPTER, FROZEN, TENSORS = b"an adapter", b"a frozen one", b"an update"


@pytest.fixture
def offer(service: FakeService) -> Offer:
    assert service.offer is not None
    return service.offer


@pytest.fixture
def store(folder: DeviceFolder) -> Iterator[AssignmentStore]:
    with closing(DeviceDatabase(folder.database)) as database:
        yield AssignmentStore(database)


@pytest.fixture
def terms(offer: Offer) -> Terms:
    plan = Plan(
        assignment_id=offer.assignment_id,
        rank=4,
        adapter=ref_of(ADAPTER),
        frozen=ref_of(FROZEN),
        seed=5,
        lease_expires_at=offer.lease_expires_at,
    )
    return Terms(
        plan=plan,
        rank=4,
        training=offer.training,
        micro_batch=2,
        longest_tokens=8,
        example_count=2,
        downloaded_bytes=30,
    )


def checkpoint_after(steps: int, width: int = 3) -> Checkpoint:
    trained = Trained(steps=steps, seconds=0.5 * steps)
    return Checkpoint(trained, {"lora_A": np.full(width, steps, np.float32)})


def update_of(tensors: bytes, errors: bytes = b"") -> Update:
    return Update(tensors, report_of(tensors), errors)


Act = Callable[[AssignmentStore], object]


@pytest.fixture
def moves(terms: Terms) -> dict[Progress, Act]:
    """What brings an assignment into each state."""
    return {
        Progress.OFFERED: lambda store: store.begin_anew(),
        Progress.TAKEN: lambda store: store.taken(terms, Received(ADAPTER, FROZEN)),
        Progress.TRAINING: lambda store: store.checkpointed(checkpoint_after(1)),
        Progress.TRAINED: lambda store: store.trained(update_of(TENSORS), None),
        Progress.DELIVERED: lambda store: store.delivered(),
    }


ON_THE_WAY = [Progress.TAKEN, Progress.TRAINING, Progress.TRAINED, Progress.DELIVERED]


def bring(store: AssignmentStore, offer: Offer, moves: dict[Progress, Act], to: Progress) -> None:
    store.offered(offer)
    if to is Progress.GIVEN_UP:
        store.give_up_others(None)
    elif to is not Progress.OFFERED:
        for progress in ON_THE_WAY[: ON_THE_WAY.index(to) + 1]:
            moves[progress](store)


def progress_of(store: AssignmentStore) -> Progress:
    status = store.status()
    assert status is not None
    return status.progress


@pytest.mark.parametrize("new", [Progress.OFFERED, *ON_THE_WAY])
@pytest.mark.parametrize("old", Progress)
def test_moves_are_those_of_the_table_and_others_change_nothing(
    store: AssignmentStore, offer: Offer, moves: dict[Progress, Act], old: Progress, new: Progress
) -> None:
    bring(store, offer, moves, old)
    before = store.status()
    if is_legal(old, new):
        moves[new](store)
        assert progress_of(store) == new
    else:
        with pytest.raises(StateConflict, match=f"cannot become {new}; got {old}"):
            moves[new](store)
        assert store.status() == before


def test_every_state_that_is_not_over_can_be_given_up() -> None:
    assert {old for old, new in LEGAL_MOVES.items() if Progress.GIVEN_UP in new} == {
        progress for progress in Progress if not is_over(progress)
    }


def test_what_was_agreed_is_there_after_a_restart(
    store: AssignmentStore, folder: DeviceFolder, offer: Offer, terms: Terms
) -> None:
    store.offered(offer)
    assert store.agreed() is None
    store.taken(terms, Received(ADAPTER, FROZEN))
    with closing(DeviceDatabase(folder.database)) as database:
        again = AssignmentStore(database)
        again.offered(offer)  # as the check-in answers it while the lease runs
        assert again.agreed() == (terms, Received(ADAPTER, FROZEN))


def test_last_checkpoint_takes_the_place_of_the_one_before(
    store: AssignmentStore, offer: Offer, moves: dict[Progress, Act]
) -> None:
    bring(store, offer, moves, Progress.TAKEN)
    assert store.checkpoint() is None
    for steps in (1, 2):
        store.checkpointed(checkpoint_after(steps))
    found = store.checkpoint()
    assert found is not None
    assert found.trained == Trained(steps=2, seconds=1.0)
    assert found.state["lora_A"].tolist() == [2, 2, 2]


def test_starts_are_counted_from_checkpoint_to_checkpoint(
    store: AssignmentStore, offer: Offer, moves: dict[Progress, Act]
) -> None:
    assert store.starts() == 0
    bring(store, offer, moves, Progress.TAKEN)
    store.count_start()
    store.count_start()
    assert store.starts() == 2
    store.begin_anew()  # what was fetched is damaged: that is no progress
    assert store.starts() == 2
    moves[Progress.TAKEN](store)
    store.checkpointed(checkpoint_after(1))
    assert store.starts() == 0
    store.uncount_start()  # the start in which that was
    store.count_start()
    assert store.starts() == 1
    store.give_up_others(None)
    store.offered(offer)
    assert store.starts() == 0


def test_checkpoint_is_written_without_a_copy_in_memory(
    store: AssignmentStore, offer: Offer, moves: dict[Progress, Act]
) -> None:
    bring(store, offer, moves, Progress.TAKEN)
    checkpoint = checkpoint_after(1, width=5_000_000)  # 20 MB
    tracemalloc.start()
    try:
        store.checkpointed(checkpoint)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("end", [Progress.TRAINED, Progress.GIVEN_UP])
def test_no_byte_of_a_checkpoint_is_left_once_it_is_not_needed(
    store: AssignmentStore,
    folder: DeviceFolder,
    offer: Offer,
    moves: dict[Progress, Act],
    end: Progress,
) -> None:
    bring(store, offer, moves, Progress.TAKEN)
    for steps in (1, 2):
        store.checkpointed(checkpoint_after(steps, width=5000))
    learned = np.full(4, 2, np.float32).tobytes()
    assert learned in bytes_in(folder.root)
    if end is Progress.TRAINED:
        moves[end](store)
    else:
        store.give_up_others(None)
    assert learned not in bytes_in(folder.root)


def test_trained_assignment_keeps_the_update_alone_and_a_delivered_one_nothing(
    store: AssignmentStore, folder: DeviceFolder, offer: Offer, moves: dict[Progress, Act]
) -> None:
    bring(store, offer, moves, Progress.TRAINING)
    assert stored_parts(folder) == {"received", "frozen", "checkpoint"}
    update = update_of(TENSORS, b"errors")
    store.trained(update, b"private lora_B")
    assert stored_parts(folder) == {"update", "rounding_errors"}
    assert kept_for_runs(folder, "private_factors") == {"run-1": b"private lora_B"}
    assert store.agreed() is None
    assert store.update() == update
    store.delivered(update.errors)
    assert stored_parts(folder) == set()
    assert kept_for_runs(folder, "rounding_errors") == {"run-1": b"errors"}
    assert store.update() is None


def test_assignment_of_another_offer_is_given_up_before_that_is_begun(
    store: AssignmentStore, folder: DeviceFolder, offer: Offer, moves: dict[Progress, Act]
) -> None:
    bring(store, offer, moves, Progress.TRAINING)
    other = offer.model_copy(update={"assignment_id": "assignment-2"})
    with pytest.raises(StateConflict, match="another assignment is under way; got assignment-1"):
        store.offered(other)
    assert store.give_up_others("assignment-1") is None
    assert store.give_up_others("assignment-2") == "assignment-1"
    assert (progress_of(store), stored_parts(folder)) == (Progress.GIVEN_UP, set())
    assert store.give_up_others("assignment-2") is None
    store.offered(other)
    status = store.status()
    assert status is not None
    assert (status.assignment_id, status.progress, status.trained_steps) == (
        "assignment-2",
        Progress.OFFERED,
        0,
    )


@pytest.mark.parametrize("name", ["received", "frozen", "checkpoint"])
def test_damaged_part_is_as_good_as_none(
    store: AssignmentStore, folder: DeviceFolder, offer: Offer, moves: dict[Progress, Act], name: str
) -> None:
    bring(store, offer, moves, Progress.TRAINING)
    damage_part(folder, name)
    assert (store.agreed() is None) == (name != "checkpoint")
    assert (store.checkpoint() is None) == (name == "checkpoint")


def test_terms_of_another_version_are_as_good_as_none(
    store: AssignmentStore, folder: DeviceFolder, offer: Offer, moves: dict[Progress, Act]
) -> None:
    bring(store, offer, moves, Progress.TAKEN)
    with tables(folder) as database:
        database.execute('UPDATE assignment SET terms = \'{"of": "tomorrow"}\'')
    assert store.agreed() is None
    store.begin_anew()
    assert stored_parts(folder) == set()


def test_state_of_another_version_gives_way_to_the_next_offer(
    store: AssignmentStore, folder: DeviceFolder, offer: Offer, moves: dict[Progress, Act]
) -> None:
    bring(store, offer, moves, Progress.TRAINING)
    with tables(folder) as database:
        database.execute("UPDATE assignment SET progress = 'distilled'")
    assert store.status() is None
    store.offered(offer)
    assert store.status() is not None
    assert stored_parts(folder) == set()


def test_checkpoint_that_does_not_fit_the_disk_leaves_the_one_before(
    store: AssignmentStore, offer: Offer, moves: dict[Progress, Act]
) -> None:
    bring(store, offer, moves, Progress.TRAINING)
    with disk_of(300_000), pytest.raises(DiskFull):
        store.checkpointed(checkpoint_after(2, width=1_000_000))
    found = store.checkpoint()
    assert found is not None
    assert found.trained.steps == 1
    store.checkpointed(checkpoint_after(3))


def test_status_says_how_far_it_is_and_what_lies_there(
    store: AssignmentStore, offer: Offer, moves: dict[Progress, Act]
) -> None:
    assert store.status() is None
    bring(store, offer, moves, Progress.TAKEN)
    store.checkpointed(checkpoint_after(2))
    status = store.status()
    assert status is not None
    assert (status.assignment_id, status.run_id, status.progress) == (
        "assignment-1",
        "run-1",
        Progress.TRAINING,
    )
    assert (status.trained_steps, status.steps) == (2, 3)
    assert status.stored_bytes.keys() == {"checkpoint", "frozen", "received"}
    assert status.stored_bytes["received"] == len(ADAPTER)
