"""Evaluations on the device: what is scored, what is told, and when it is given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
from device_tables import tables
from fake_bundle import bundle_on_disk
from fake_runtime import Opened
from fake_service import FakeService, problem
from killed import run_until_killed

from edge_sdk.batching.batches import Batching, batching_of, each_once
from edge_sdk.client import EdgeClient
from edge_sdk.events import Evaluated, Event
from edge_sdk.examples import Example, ExampleStore
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes.base import Batch, Evaluation
from edge_sdk.training.evaluation import evaluate_locally
from hetlora.errors import NoExamples, ServiceFailed, ServiceUnreachable, TrainingDiverged
from hetlora.graph_names import LABELS
from hetlora.messages.device import TrainingSettings

MakeClient = Callable[..., EdgeClient]
BATCH = {LABELS: np.array([0, 1])}


class Scoring:
    """Answers what it was told to, batch by batch."""

    def __init__(self, *answers: Evaluation) -> None:
        self.answers = iter(answers)

    def evaluate(self, batch: Batch) -> Evaluation:
        return next(self.answers)


@pytest.fixture
def evaluating(service: FakeService) -> FakeService:
    """A service that offers an evaluation of the global adapter."""
    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"kind": "evaluate", "assignment_id": "evaluation-1"})
    return service


@pytest.fixture
def held_out(folder: DeviceFolder) -> Iterator[ExampleStore]:
    with ExampleStore(folder.held_out_file) as store:
        yield store


def test_held_out_examples_are_scored_under_the_plans_adapter_and_only_figures_are_told(
    evaluating: FakeService, make_client: MakeClient, opened: Opened
) -> None:
    client = make_client(runtime=opened)
    client.held_out.put_many([Example("snow", "cold"), Example("ice", "cold"), Example("sun", "warm")])
    visit = client.run_once()
    assert visit.outcome == "accepted"
    assert [request for request in evaluating.requests if "/objects/" not in request][-2:] == [
        "POST /device/v1/evaluations/evaluation-1:start",
        "POST /device/v1/evaluations/evaluation-1:submit",
    ]
    [report] = evaluating.evaluations
    assert visit.evaluation == report
    assert (report.example_count, report.correct_count) == (3, 2)
    # Logits 0.25 and 0: log(1 + e^-0.25) of "cold" twice, log(1 + e^0.25) of "warm" once.
    assert report.loss == pytest.approx((2 * np.log1p(np.exp(-0.25)) + np.log1p(np.exp(0.25))) / 3)
    assert (opened.began[0].rank, evaluating.updates, evaluating.reports) == (4, [], [])


KILLED = """
import os, signal, sys
from fake_runtime import QuadraticRuntime
from fake_service import NOW, FakeService
from strong_device import STRONG
from edge_sdk.client import EdgeClient

class TooLarge(QuadraticRuntime):
    def evaluate(self, batch, factors):
        os.kill(os.getpid(), signal.SIGKILL)

service = FakeService()
service.offer = service.offer.model_copy(update={"kind": "evaluate", "assignment_id": "evaluation-1"})
client = EdgeClient(
    "http://service.test",
    "weather",
    sys.argv[1],
    enrolment_token="token",
    capabilities=STRONG,
    runtime=TooLarge(),
    http=service.http,
    clock=lambda: NOW,
)
client.held_out.put("snow", "cold")
client.run_once()
"""


def test_evaluation_that_killed_its_process_is_given_back_for_an_hour(
    evaluating: FakeService, make_client: MakeClient, opened: Opened, folder: DeviceFolder
) -> None:
    run_until_killed(KILLED, folder.root)
    client = make_client(runtime=opened)
    assert (client.run_once().outcome, opened.began) == ("failed", [])
    assert [failure.code for failure in evaluating.failures] == ["device_too_small"]
    with tables(folder) as database:
        database.execute("UPDATE trials_under_way SET begun_at = begun_at - 3600")
    assert client.run_once().outcome == "accepted"


def test_check_in_tells_how_much_is_held_out(service: FakeService, make_client: MakeClient) -> None:
    service.offer = None
    client = make_client()
    client.run_once()
    client.held_out.put("snow", "cold")
    client.run_once()
    assert [told.held_out_count for told in service.check_ins][-2:] == [0, 1]
    # A service that knows of no evaluations is told nothing of them.
    assert "held_out_count" not in service.check_ins[-2].model_dump_json()


def test_examples_to_train_on_are_not_evaluated_on(
    evaluating: FakeService, make_client: MakeClient, opened: Opened
) -> None:
    client = make_client(runtime=opened)
    client.held_out.put("snow", "cold")
    client.run_once()
    assert evaluating.evaluations[0].example_count == 1


def test_evaluation_without_an_example_is_given_back(
    evaluating: FakeService, make_client: MakeClient
) -> None:
    client = make_client(on_event=lambda event: client.held_out.delete("only"))
    client.held_out.put("snow", "cold", key="only")
    visit = client.run_once()
    assert (visit.outcome, visit.code) == ("failed", "no_examples")
    assert [failure.code for failure in evaluating.failures] == ["no_examples"]
    assert evaluating.requests[-1] == "POST /device/v1/evaluations/evaluation-1:fail"


def test_report_that_found_no_service_is_made_again_by_the_next_visit(
    evaluating: FakeService, make_client: MakeClient
) -> None:
    events: list[Event] = []
    client = make_client(on_event=events.append)
    client.held_out.put("snow", "cold")
    client.run_once()
    passes = len(evaluating.requests)
    evaluating.evaluations.clear()
    # Of the next visit's requests the last is the report.
    fetches = [None] * 3
    evaluating.faults = [*fetches, *[httpx.ConnectError("away")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert passes > 4
    assert evaluating.evaluations == []
    assert client.run_once().outcome == "accepted"
    assert len(evaluating.evaluations) == 1
    assert sum(isinstance(event, Evaluated) for event in events) == 2


def test_service_that_is_ill_when_told_of_an_evaluation_is_asked_later(
    evaluating: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.held_out.put("snow", "cold")
    client.run_once()
    evaluating.faults = [None, None, None, *[problem(ServiceFailed("ill"))] * 3]
    with pytest.raises(ServiceFailed):
        client.run_once()


def test_every_example_comes_once_and_a_full_batch_repeats_some(held_out: ExampleStore) -> None:
    held_out.put_many([Example(f"text {number}", "cold") for number in range(5)])

    def collate(examples: object) -> Batch:
        return {"texts": np.array([example.text for example in examples])}  # type: ignore[attr-defined]

    for always_full, sizes in ((False, [2, 2, 1]), (True, [2, 2, 2])):
        batching = Batching(collate, batch_size=2, always_full=always_full)
        batches = list(each_once(held_out, batching, rng=np.random.default_rng(3)))
        assert [len(batch["texts"]) for batch, _ in batches] == sizes
        assert [count for _, count in batches] == [2, 2, 1]
        seen = [text for batch, count in batches for text in batch["texts"][:count]]
        assert sorted(seen) == [f"text {number}" for number in range(5)]


def test_order_of_examples_follows_from_the_seed(held_out: ExampleStore) -> None:
    held_out.put_many([Example(f"snow {number}", "cold") for number in range(20)])

    def order(seed: int) -> list[str]:
        batching = Batching(lambda examples: {"texts": np.array([own.text for own in examples])}, 20, False)
        [(batch, _)] = each_once(held_out, batching, rng=np.random.default_rng(seed))
        return [*batch["texts"]]

    assert order(1) == order(1) != order(2)


def test_rows_that_fill_a_batch_up_do_not_count() -> None:
    logits = np.array([[0, 0], [0, 9]], np.float32)
    report = evaluate_locally(
        Scoring(Evaluation(5.0, logits)), iter([(BATCH, 1)]), "text-classification", max_seconds=9
    )
    assert (report.example_count, report.correct_count) == (1, 1)
    assert report.loss == pytest.approx(np.log(2))


def test_losses_of_generated_text_count_by_their_tokens() -> None:
    # One label in the first column is scored by nothing: 1 token and 3.
    short = {LABELS: np.array([[5, -100, 7, -100]])}
    long = {LABELS: np.array([[-100, 1, 2, 3]])}
    runtime = Scoring(Evaluation(2.0, None), Evaluation(4.0, None))
    report = evaluate_locally(runtime, iter([(short, 1), (long, 1)]), "text-generation", max_seconds=9)
    assert (report.example_count, report.correct_count, report.loss) == (2, None, 3.5)


def test_no_batch_begins_after_the_time_is_up() -> None:
    times = iter([0.0, 1.0, 2.5])
    even = Evaluation(0.0, np.zeros((2, 2), np.float32))
    batches = iter([(BATCH, 2)] * 5)
    report = evaluate_locally(
        Scoring(*[even] * 5), batches, "text-classification", max_seconds=2, timer=lambda: next(times)
    )
    assert report.example_count == 4


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 2e6])
def test_loss_that_means_nothing_is_not_reported(loss: float) -> None:
    with pytest.raises(TrainingDiverged):
        evaluate_locally(
            Scoring(Evaluation(loss, None)),
            iter([({LABELS: np.ones((1, 3))}, 1)]),
            "text-generation",
            max_seconds=9,
        )


def test_nothing_to_score_is_said_to_be_so() -> None:
    nothing = {LABELS: np.full((1, 3), -100)}
    for batches in ([], [(nothing, 1)]):
        with pytest.raises(NoExamples):
            evaluate_locally(Scoring(Evaluation(0.0, None)), iter(batches), "text-generation", max_seconds=9)


def test_batches_are_of_the_runs_size(folder: DeviceFolder) -> None:
    bundle = bundle_on_disk(folder.root / "bundle")
    assert batching_of(bundle, TrainingSettings(batch_size=3, max_tokens=8)).batch_size == 3
