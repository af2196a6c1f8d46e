"""Comparing adapters on a device with little memory: within what it agreed to, and never for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from adapter_rounds import CAREFUL, b_in_use, offer_round, outcomes
from fake_bundle import adapter_of
from fake_runtime import NotScoring, Opened, QuadraticRuntime, quadratic
from fake_service import FakeService
from killed import run_until_killed
from strong_device import STRONG

from edge_sdk.adapters.adapters import WholeAdapter
from edge_sdk.adapters.index import StoredAdapter
from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, Event, NotAdopted
from edge_sdk.examples import ExampleStore
from edge_sdk.folder import DeviceFolder
from edge_sdk.planning.forecast import PROCESS_BYTES
from edge_sdk.planning.planner import MEMORY_SHARE
from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.session.adoption import MOST_CUT_OFF, Adopter
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.cost import StepCost
from hetlora.errors import DataError, StoreDamaged
from hetlora.graph_names import INPUT_IDS
from hetlora.messages.conditions import Conditions

MakeClient = Callable[..., EdgeClient]
MB = 1_000_000


def leave_undecided(
    service: FakeService, client: EdgeClient, *, index: int = 1, b: float = 0.5, rows: int, tokens: int
) -> None:
    """What a round leaves in which this was agreed, before anything is compared."""
    assert service.offer is not None
    whole = WholeAdapter(adapter_of(4, b=b), Parametrisation())
    client.adapters.keep_round(
        service.offer.model_copy(update={"round_index": index}),
        whole,
        whole,
        training=service.offer.training.model_copy(update={"max_tokens": tokens}),
        micro_batch=rows,
    )


def sizes(runtime: QuadraticRuntime) -> list[tuple[int, ...]]:
    """Rows and tokens of the batches that it was given."""
    return [batch[INPUT_IDS].shape for batch in runtime.batches]


@pytest.mark.parametrize(
    ("in_use", "new"), [((2, 8), (1, 2)), ((1, 2), (2, 8)), ((2, 2), (1, 8)), ((1, 8), (2, 2))]
)
def test_both_are_scored_at_the_rows_and_lengths_that_were_agreed_for_either(
    service: FakeService,
    careful: MakeClient,
    opened: Opened,
    events: list[Event],
    in_use: tuple[int, int],
    new: tuple[int, int],
) -> None:
    client = careful(runtime=opened)
    leave_undecided(service, client, index=1, b=0.25, rows=in_use[0], tokens=in_use[1])
    client.adapters.use("global")
    leave_undecided(service, client, index=2, b=0.5, rows=new[0], tokens=new[1])
    service.offer = None
    client.run_once()
    assert outcomes(events) == [Adopted]
    assert [sizes(runtime) for runtime in opened.runtimes] == [[(1, 2)] * 3] * 2


def test_round_of_a_lean_device_is_compared_row_by_row(careful: MakeClient, opened: Opened) -> None:
    heavy = FakeService(
        change=lambda manifest: manifest.model_copy(
            update={
                "cost_model": manifest.cost_model.model_copy(
                    update={"live_bytes": (StepCost(per_text=100 * MB),)}
                )
            }
        )
    )
    lean = STRONG.model_copy(
        update={"memory_available_bytes": int((PROCESS_BYTES + 150 * MB) / MEMORY_SHARE) + 2}
    )
    careful(http=heavy.http, capabilities=lean).run_once()
    offer_round(heavy, 1, b=0.5)
    client = careful(http=heavy.http, capabilities=lean, runtime=opened)
    assert client.run_once().outcome == "accepted"
    report = client.adapters.last_comparison()
    assert report is not None
    assert report.new_loss is not None
    assert [{rows for rows, _ in sizes(runtime)} for runtime in opened.runtimes] == [{1}, {1}, {1}]


def test_held_out_texts_are_cut_to_the_longest_that_was_trained_on(
    service: FakeService, careful: MakeClient, opened: Opened
) -> None:
    careful(capabilities=None).run_once()
    offer_round(service, 1, b=0.5)
    client = careful(capabilities=None, runtime=opened)
    client.held_out.put("snow " * 8, "cold", key="long")
    assert client.run_once().outcome == "accepted"
    report = client.adapters.last_comparison()
    assert report is not None
    assert report.new_loss is not None
    # Before these there may be a trial, which is of any length that the run allows.
    assert [{tokens for _, tokens in sizes(runtime)} for runtime in opened.runtimes[-3:]] == [{3}, {3}, {3}]


def test_adapter_of_before_is_compared_row_by_row(service: FakeService, careful: MakeClient) -> None:
    client = careful()
    current = client.adapters.current()
    assert current is not None
    assert current.micro_batch == 2
    fields = current.model_dump(mode="json")
    del fields["micro_batch"]
    assert StoredAdapter.model_validate(fields).micro_batch == 1


KILLED = """
import os, signal, sys
from fake_runtime import QuadraticRuntime
from fake_service import NOW, FakeService
from strong_device import STRONG
from edge_sdk.adapters.policy import Adoption
from edge_sdk.client import EdgeClient

class TooLarge(QuadraticRuntime):
    def evaluate(self, batch, factors):
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out

EdgeClient(
    "http://service.test",
    "weather",
    sys.argv[1],
    enrolment_token="token",
    capabilities=STRONG,
    runtime=TooLarge(),
    http=FakeService().http,
    clock=lambda: NOW,
    adoption=Adoption("if_not_worse"),
).run_once()
"""


def test_comparison_that_kills_each_process_ends_and_the_device_gets_back_to_work(
    service: FakeService, careful: MakeClient, events: list[Event], folder: DeviceFolder
) -> None:
    client = careful()
    leave_undecided(service, client, rows=1, tokens=2)
    client.close()
    for _ in range(MOST_CUT_OFF):
        run_until_killed(KILLED, folder.root)

    service.offer = None
    client = careful(runtime=NotScoring(AssertionError("this is what killed the others")))
    assert client.run_once().outcome == "no_work"
    report = client.adapters.last_comparison()
    assert report is not None
    assert (report.outcome, report.new_loss, report.in_use_loss) == ("kept", None, None)
    assert report.reason == "each comparison with it ended with its process"
    assert b_in_use(client.adapters) == 0.25
    assert outcomes(events) == [NotAdopted]


def test_next_round_is_compared_after_one_that_was_not(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    client = careful()
    leave_undecided(service, client, rows=1, tokens=2)
    for _ in range(MOST_CUT_OFF):
        client.adapters.begin_comparison()
    offer_round(service, 2, b=0.5)
    assert client.run_once().outcome == "accepted"
    assert outcomes(events) == [NotAdopted, Adopted]


def test_comparison_that_is_put_off_again_and_again_is_made_in_the_end(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    is_idle = [True]

    class Disturbed(QuadraticRuntime):
        def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
            is_idle[0] = False
            return super().evaluate(batch, factors)

    def client_with(runtime: type[QuadraticRuntime]) -> EdgeClient:
        return careful(
            runtime=runtime(),
            conditions=Conditions(idle=True),
            is_idle=lambda: is_idle[0],
        )

    client = client_with(Disturbed)
    leave_undecided(service, client, rows=1, tokens=8)
    service.offer = None
    for _ in range(MOST_CUT_OFF + 1):
        is_idle[0] = True
        client.run_once()
    assert b_in_use(client.adapters) == 0.25
    is_idle[0] = True
    client_with(QuadraticRuntime).run_once()
    assert outcomes(events) == [Adopted]
    assert b_in_use(client.adapters) == 0.5


def test_interruption_is_no_death_of_the_process(service: FakeService, careful: MakeClient) -> None:
    client = careful(runtime=NotScoring(KeyboardInterrupt()))
    leave_undecided(service, client, rows=1, tokens=8)
    with pytest.raises(KeyboardInterrupt):
        client.run_once()
    assert client.adapters.index().comparisons_cut_off == 0


def test_batch_that_a_runtime_refuses_is_no_reason_to_adopt_unseen(
    service: FakeService, careful: MakeClient
) -> None:
    client = careful(runtime=NotScoring(DataError("the model refuses the batch")))
    leave_undecided(service, client, rows=1, tokens=8)
    service.offer = None
    client.run_once()
    report = client.adapters.last_comparison()
    assert report is not None
    assert report.outcome == "kept"
    assert report.reason == "the new one cannot be scored: the model refuses the batch (data_unreadable)"
    assert b_in_use(client.adapters) == 0.25


@pytest.mark.parametrize("asked", ["ids", "kinds"])
def test_damaged_held_out_store_is_no_reason_to_adopt_unseen(
    asked: str, service: FakeService, careful: MakeClient, events: list[Event], tmp_path: Path
) -> None:
    def damaged(store: ExampleStore) -> None:
        raise StoreDamaged("the store is damaged")

    damaged_store = type("DamagedStore", (ExampleStore,), {asked: damaged})
    client = careful()
    leave_undecided(service, client, rows=1, tokens=8)
    with damaged_store(tmp_path / "damaged.sqlite") as held_out:
        adopter = Adopter(client.adapters, CAREFUL, held_out, quadratic, None, events.append)
        comparison = adopter.settle()
    assert comparison is not None
    assert (comparison.outcome, "store_damaged" in comparison.reason) == ("kept", True)


def test_round_that_is_trained_once_more_in_other_micro_batches_is_not_decided_about_again(
    service: FakeService, careful: MakeClient
) -> None:
    client = careful()
    leave_undecided(service, client, rows=2, tokens=8)
    client.adapters.use("global")
    leave_undecided(service, client, rows=1, tokens=8)
    assert client.adapters.index().candidate is None
