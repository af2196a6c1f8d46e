"""A device plans, tries what it never ran, plans again, and trains as planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fake_bundle import bundle_on_disk
from fake_runtime import Opened, Telling
from fake_service import FakeService
from ordered_runtime import OrderedRuntime
from strong_device import STRONG

from edge_sdk.batching.collation import TokenRow
from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, RankChosen
from edge_sdk.examples import ExampleStore
from edge_sdk.planning.forecast import EXTRA_CORE_SHARE, PROCESS_BYTES, StepPlan
from edge_sdk.planning.planner import MEMORY_SHARE
from edge_sdk.planning.trial import steps_of
from edge_sdk.session.candidate import MOST_EXAMPLES_READ, longest_tokens
from edge_sdk.session.visit import Visit
from hetlora.cost import StepCost
from hetlora.graph_names import LABELS
from hetlora.manifest import Manifest
from hetlora.messages.conditions import Conditions
from hetlora.messages.device import TrainingSettings

MakeClient = Callable[..., EdgeClient]
MB = 1_000_000


def costing(**costs: object) -> FakeService:
    """A service whose bundle costs what is said."""

    def change(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"cost_model": manifest.cost_model.model_copy(update=costs)})

    return FakeService(change=change)


@pytest.fixture
def heavy_rows() -> FakeService:
    """A row takes 115 MB."""
    return costing(live_bytes=(StepCost(per_text=100 * MB),))


def test_bundle_is_tried_once_and_trained_from_then_on(make_client: MakeClient, opened: Opened) -> None:
    client = make_client(capabilities=None, runtime=opened)
    assert client.run_once().outcome == "accepted"
    assert len(opened.runtimes) == 2  # a trial and a training
    assert client.run_once().outcome == "accepted"
    assert len(opened.runtimes) == 3


def test_bundle_is_tried_again_with_other_threads(make_client: MakeClient, opened: Opened) -> None:
    make_client(capabilities=None, runtime=opened).run_once()
    make_client(capabilities=None, runtime=opened, threads=1).run_once()
    assert len(opened.runtimes) == 4


def test_bundle_is_tried_again_with_another_runtime(make_client: MakeClient, opened: Opened) -> None:
    make_client(capabilities=None, runtime=OrderedRuntime()).run_once()
    make_client(capabilities=None, runtime=opened).run_once()
    assert len(opened.runtimes) == 2


def test_run_that_leaps_at_each_step_does_not_diverge_in_its_trial(make_client: MakeClient) -> None:
    # Each step at this rate takes what is trained to 9 times its distance and the loss to 81 times. The run
    # takes three, of which two are high, where three running are too many; a trial takes more.
    training = TrainingSettings(
        steps=3, learning_rate=10, optimizer="sgd", pruning_decay=1, pruning_penalty=0, divergence_factor=1.5
    )
    service = FakeService(training=training)
    assert make_client(capabilities=None, http=service.http).run_once().outcome == "accepted"


def test_loss_that_is_no_number_is_no_verdict_of_a_trial(tmp_path: Path) -> None:
    bundle = bundle_on_disk(tmp_path / "bundle")
    runtime = Telling(float("nan"))
    with ExampleStore(tmp_path / "examples") as examples:
        examples.put("snow", "cold")
        plan = StepPlan(batch=1, tokens=3, rank=2, micro_batch=1)
        step = steps_of(bundle, runtime, examples, plan, TrainingSettings(), None)()
        step()
    assert len(runtime.batches) == 1


def test_step_without_memory_for_it_is_told_by_the_trial(
    service: FakeService, make_client: MakeClient
) -> None:
    runtime = Telling(MemoryError())
    for _ in range(2):
        visit = make_client(capabilities=None, runtime=runtime).run_once()
        assert (visit.outcome, visit.code) == ("failed", "device_too_small")
    assert len(runtime.batches) == 1  # the second visit loads no model
    assert [request for request in service.requests if ":start" in request] == []


def test_trial_that_makes_a_device_decline_is_made_once(make_client: MakeClient, opened: Opened) -> None:
    service = costing(flops=StepCost(per_text=100), written_bytes=StepCost())

    def visit(threads: int | None, round_seconds: float) -> Visit:
        assert service.offer is not None
        service.offer = service.offer.model_copy(update={"round_seconds": round_seconds})
        client = make_client(capabilities=None, runtime=opened, threads=threads, http=service.http)
        return client.run_once()

    # The bundle costs next to nothing, so that a real step takes more than four times as long as forecast,
    # which is the most that is believed: on one thread two of three steps take this.
    first = visit(None, 600.0).choice
    assert first is not None
    cores = service.check_ins[-1].capabilities.cores
    two_steps = 2 * first.forecast.step_seconds * (1 + EXTRA_CORE_SHARE * (cores - 1))
    for _ in range(2):
        assert visit(1, 0.5 * two_steps).code == "device_too_small"
        assert len(opened.runtimes) == 3
    assert visit(1, 600.0).outcome == "accepted"
    assert len(opened.runtimes) == 4  # not tried anew, and trained


def test_trial_leaves_nothing_of_itself_in_the_update(service: FakeService, make_client: MakeClient) -> None:
    make_client(capabilities=None).run_once()
    make_client().run_once()  # a profile by hand is not tried
    tried, untried = service.updates
    assert tried.factors["query"].lora_B.tolist() == untried.factors["query"].lora_B.tolist()


def test_profile_by_hand_is_not_tried(make_client: MakeClient, opened: Opened) -> None:
    make_client(runtime=opened).run_once()
    assert len(opened.runtimes) == 1


def test_device_that_is_far_too_small_declines_before_it_fetches_the_bundle(
    make_client: MakeClient, opened: Opened
) -> None:
    service = costing(base_weight_bytes=2**50)
    visit = make_client(capabilities=None, runtime=opened, http=service.http).run_once()
    assert (visit.outcome, visit.code) == ("failed", "device_too_small")
    assert "for lack of memory" in visit.reason
    assert service.fetched() == ["manifest.json"]
    assert opened.runtimes == []


def test_condition_that_is_lost_in_a_trial_gives_the_place_back(make_client: MakeClient) -> None:
    answers = iter([True, True, True])  # before the visit, the offer and the trial's first step

    def is_charging() -> bool:
        return next(answers, False)

    charging = Conditions(charging=True)
    visit = make_client(capabilities=None, conditions=charging, is_charging=is_charging).run_once()
    assert (visit.outcome, visit.code) == ("failed", "conditions_unmet")


def free_for(model_bytes: int) -> int:
    return int((PROCESS_BYTES + model_bytes) / MEMORY_SHARE) + 2


def test_lean_device_trains_row_by_row(
    heavy_rows: FakeService, make_client: MakeClient, opened: Opened
) -> None:
    lean = STRONG.model_copy(update={"memory_available_bytes": free_for(150 * MB)})
    visit = make_client(capabilities=lean, runtime=opened, http=heavy_rows.http).run_once()
    assert visit.choice is not None
    assert (visit.outcome, visit.choice.rank, visit.choice.micro_batch) == ("accepted", 4, 1)
    [training] = opened.runtimes
    # Three steps of two examples, one at a time.
    assert [len(batch[LABELS]) for batch in training.batches] == [1] * 6


def test_texts_are_cut_as_planned_where_the_run_permits_it(make_client: MakeClient, opened: Opened) -> None:
    service = costing(live_bytes=(StepCost(per_token=100 * MB),))
    assert service.offer is not None
    training = service.offer.training.model_copy(update={"min_tokens": 1})
    service.offer = service.offer.model_copy(update={"training": training})
    lean = STRONG.model_copy(update={"memory_available_bytes": free_for(260 * MB)})  # two tokens
    visit = make_client(capabilities=lean, runtime=opened, http=service.http).run_once()
    assert visit.choice is not None
    assert (visit.outcome, visit.choice.max_tokens) == ("accepted", 2)
    assert {batch["input_ids"].shape for batch in opened.runtimes[0].batches} == {(1, 2)}


def test_app_is_told_the_plan_that_follows_from_the_trial(make_client: MakeClient) -> None:
    events: list[Event] = []
    make_client(capabilities=None, on_event=events.append).run_once()
    [chosen] = [event.choice for event in events if isinstance(event, RankChosen)]
    assert chosen.rank == 4
    assert chosen.step.tokens == 3  # of the longest of its two examples, and not the 8 of the run


def test_longest_of_the_texts_that_are_scored_is_planned_for(
    service: FakeService, make_client: MakeClient
) -> None:
    assert service.offer is not None
    training = service.offer.training.model_copy(update={"evaluate": True})
    service.offer = service.offer.model_copy(update={"training": training})
    client = make_client(capabilities=None)
    client.held_out.put("snow and ice and sun and", "cold")
    choice = client.run_once().choice
    assert choice is not None
    assert choice.step.tokens == 6


def test_text_that_grows_after_the_plan_is_cut_to_the_length_that_was_planned_for(
    make_client: MakeClient, opened: Opened
) -> None:
    def grow(event: Event) -> None:
        if isinstance(event, RankChosen):
            client.examples.put("snow and ice and sun and sand", "cold", key="first")

    client = make_client(capabilities=None, runtime=opened, on_event=grow)
    assert client.run_once().outcome == "accepted"
    _, training = opened.runtimes
    assert {batch["input_ids"].shape for batch in training.batches} == {(2, 3)}


class Rows:
    """So many examples, of which one is the longest."""

    def __init__(self, count: int) -> None:
        self._count = count

    def ids(self) -> list[int]:
        return [*range(self._count)]

    def get(self, ids: Sequence[int]) -> list[TokenRow]:
        return [TokenRow([1] * (9 if number == 70 else 2), [], [1] * 3) for number in ids]


def test_longest_example_counts_wherever_it_lies() -> None:
    assert longest_tokens(Rows(70)) == 3  # of what is learned
    assert longest_tokens(Rows(71)) == 9
    assert longest_tokens(Rows(0)) is None


def test_thousands_of_examples_are_not_read_for_their_lengths() -> None:
    assert longest_tokens(Rows(MOST_EXAMPLES_READ + 1)) is None
