"""Scores of a round: what is held out, before the first step and after the last, where the run asks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_bundle import bundle_on_disk
from fake_service import FakeService

from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, HeldOutScored, StepDone
from edge_sdk.examples import Example, ExampleStore
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes.base import Batch, Evaluation
from edge_sdk.session.held_out import MOST_BATCHES, HeldOutScores
from hetlora.errors import ConditionsUnmet, Stopped
from hetlora.graph_names import LABELS
from hetlora.messages.device import TrainingSettings

MakeClient = Callable[..., EdgeClient]


class Told:
    """Its logits are the number that is set, for the first class."""

    def __init__(self) -> None:
        self.surely = 0.0
        self.batches: list[Batch] = []

    def evaluate(self, batch: Batch) -> Evaluation:
        self.batches.append(batch)
        return Evaluation(0.0, np.tile(np.array([self.surely, 0], np.float32), (len(batch[LABELS]), 1)))


@pytest.fixture
def asking(service: FakeService) -> FakeService:
    """A service whose run asks for scores: four steps that each go half of the way."""
    assert service.offer is not None
    training = TrainingSettings(
        steps=4, learning_rate=0.5, optimizer="sgd", pruning_decay=1, pruning_penalty=0, evaluate=True
    )
    service.offer = service.offer.model_copy(update={"training": training})
    return service


@pytest.fixture
def scores(folder: DeviceFolder) -> Callable[..., HeldOutScores]:
    """Scores of one example in a batch."""
    bundle = bundle_on_disk(folder.root / "bundle")

    def make(store: ExampleStore | None, **given: object) -> HeldOutScores:
        usual: dict[str, object] = {
            "seed": 1,
            "max_seconds": 100.0,
            "may_go_on": lambda: None,
            "on_event": lambda event: None,
        }
        settings = TrainingSettings(batch_size=1, max_tokens=8)
        return HeldOutScores(store, bundle, settings, **(usual | given))  # type: ignore[arg-type]

    return make


@pytest.fixture
def store(folder: DeviceFolder) -> ExampleStore:
    return ExampleStore(folder.held_out_file)


def test_losses_before_and_after_are_told_to_app_and_service(
    asking: FakeService, make_client: MakeClient
) -> None:
    events: list[Event] = []
    client = make_client(on_event=events.append)
    client.held_out.put_many([Example("snow", "cold"), Example("sun", "warm")])
    visit = client.run_once()
    [report] = asking.reports
    # The logit of "cold" is the mean of lora_B, 1/4 at first: 3/4 from one, and 3/64 after four halves.
    before, after = ((np.log1p(np.exp(-x)) + np.log1p(np.exp(x))) / 2 for x in (0.25, 1 - 0.75 / 16))
    assert report.held_out_loss_before == pytest.approx(before, rel=1e-5)
    assert report.held_out_loss_after == pytest.approx(after, rel=1e-5)
    assert visit.report == report
    order = [event.when if isinstance(event, HeldOutScored) else "step" for event in _of_training(events)]
    assert order == ["before", "step", "step", "step", "step", "after"]


def _of_training(events: list[Event]) -> list[HeldOutScored | StepDone]:
    return [event for event in events if isinstance(event, HeldOutScored | StepDone)]


def test_run_that_does_not_ask_is_told_nothing(service: FakeService, make_client: MakeClient) -> None:
    events: list[Event] = []
    client = make_client(on_event=events.append)
    client.held_out.put("snow", "cold")
    client.run_once()
    assert "held_out" not in service.reports[0].model_dump_json()
    assert not any(isinstance(event, HeldOutScored) for event in events)


def test_device_that_holds_nothing_out_trains_as_ever(asking: FakeService, make_client: MakeClient) -> None:
    assert make_client().run_once().outcome == "accepted"
    assert "held_out" not in asking.reports[0].model_dump_json()


def test_examples_that_the_bundle_does_not_know_cost_the_score_and_not_the_round(
    asking: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.held_out.put("snow", "a label of last year")
    assert client.run_once().outcome == "accepted"
    assert "held_out" not in asking.reports[0].model_dump_json()


def test_condition_that_is_lost_while_scoring_ends_the_round(
    store: ExampleStore, scores: Callable[..., HeldOutScores]
) -> None:
    def refuse() -> None:
        raise ConditionsUnmet("this device may not work now")

    store.put("snow", "cold")
    with pytest.raises(ConditionsUnmet):
        scores(store, may_go_on=refuse).score_before(Told())


@pytest.mark.parametrize("error", [ConditionsUnmet("not now"), MemoryError(), OSError("a disk that is gone")])
def test_round_that_is_trained_to_its_end_does_not_fail_for_want_of_a_score(
    store: ExampleStore, scores: Callable[..., HeldOutScores], error: Exception
) -> None:
    store.put("snow", "cold")
    looks = iter([None, error])
    scored = scores(store, may_go_on=lambda: _raise(next(looks)))
    scored.score_before(Told())
    scored.score_after(Told())
    assert scored.told() == {}


def test_stop_ends_the_second_scoring(store: ExampleStore, scores: Callable[..., HeldOutScores]) -> None:
    store.put("snow", "cold")
    looks = iter([None, Stopped("this visit was asked to end")])
    scored = scores(store, may_go_on=lambda: _raise(next(looks)))
    scored.score_before(Told())
    with pytest.raises(Stopped):
        scored.score_after(Told())


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def test_lack_of_memory_for_the_first_score_costs_the_score_and_not_the_round(
    store: ExampleStore, scores: Callable[..., HeldOutScores]
) -> None:
    store.put("snow", "cold")
    scored = scores(store, may_go_on=lambda: _raise(MemoryError()))
    scored.score_before(Told())
    assert (scored.first, scored.told()) == (None, {})


def test_first_score_of_another_process_is_taken_as_it_is(
    store: ExampleStore, scores: Callable[..., HeldOutScores]
) -> None:
    store.put("snow", "cold")
    before, after = scores(store), scores(store)
    before.score_before(Told())
    model = Told()
    after.score_before(model, before.first)
    assert model.batches == []
    after.score_after(model)
    assert after.told() == {"held_out_loss_before": np.log(2), "held_out_loss_after": np.log(2)}


def test_at_most_so_many_batches_are_scored(
    store: ExampleStore, scores: Callable[..., HeldOutScores]
) -> None:
    store.put_many([Example(f"snow {number}", "cold") for number in range(MOST_BATCHES + 5)])
    model, scored = Told(), scores(store)
    scored.score_before(model)
    scored.score_after(model)
    assert len(model.batches) == 2 * MOST_BATCHES


def test_second_scoring_is_of_the_examples_for_which_the_first_had_time(
    store: ExampleStore, scores: Callable[..., HeldOutScores]
) -> None:
    store.put_many([Example(f"snow {number}", "cold") for number in range(6)])
    clock = iter(range(100))  # a second passes between any two looks
    model, scored = Told(), scores(store, max_seconds=3.0, timer=lambda: next(clock))
    scored.score_before(model)
    first = [batch["input_ids"].tolist() for batch in model.batches]
    assert len(first) == 3
    scored.score_after(model)
    assert [batch["input_ids"].tolist() for batch in model.batches[3:]] == first
    assert scored.seconds_to_keep == 2 * 5  # looks at the clock: before, beginning, three batches, after
    assert scored.told() == {"held_out_loss_before": np.log(2), "held_out_loss_after": np.log(2)}


def test_examples_deleted_meanwhile_are_not_compared_with_those_that_were_there(
    store: ExampleStore, scores: Callable[..., HeldOutScores]
) -> None:
    store.put_many([Example("snow", "cold"), Example("ice", "cold")])
    model, scored = Told(), scores(store)
    scored.score_before(model)
    store.put("sun", "warm", key="goes")
    store.clear()
    scored.score_after(model)
    assert scored.told() == {}


def test_loss_that_means_nothing_is_left_out(
    store: ExampleStore, scores: Callable[..., HeldOutScores]
) -> None:
    store.put("sun", "warm")
    model, scored = Told(), scores(store)
    scored.score_before(model)
    model.surely = 2e6  # of the wrong class
    scored.score_after(model)
    assert scored.told() == {}


def test_nobody_asks_and_nothing_is_scored(scores: Callable[..., HeldOutScores]) -> None:
    model, scored = Told(), scores(None)
    scored.score_before(model)
    scored.score_after(model)
    assert (model.batches, scored.told(), scored.seconds_to_keep) == ([], {}, 0.0)
