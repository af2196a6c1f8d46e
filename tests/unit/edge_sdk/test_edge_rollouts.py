"""Versions that an operator rolls out. The fake loss on "cold" is log(1 + e^-b), b being the mean of lora_B.

The adapter in use has b = 0.25 in tests with `careful`, and a loss of 0.576.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx
import numpy as np
import pytest
from adapter_rounds import CAREFUL, b_in_use, outcomes
from fake_bundle import adapter_of
from fake_service import FakeService
from killed import run_until_killed

from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, Event, NotAdopted
from edge_sdk.folder import DeviceFolder
from hetlora.errors import ServiceUnreachable

MakeClient = Callable[..., EdgeClient]


def loss_of(b: float) -> float:
    return float(np.log1p(np.exp(-b)))


def roll_out(service: FakeService, b: float, index: int = 5, *, takes_back: bool = False) -> None:
    """A version whose lora_B is `b` is offered to be adopted."""
    changes = {"kind": "adopt", "assignment_id": f"ask-{index}", "round_index": index}
    assert service.offer is not None
    service.global_adapter = adapter_of(4, b=b)
    service.offer = service.offer.model_copy(update=changes | {"takes_back": takes_back})


def roll_out_next(service: FakeService, b: float, index: int, *, takes_back: bool = False) -> None:
    """Another one, after a report ended the one before."""
    service.offer = FakeService().offer
    roll_out(service, b, index, takes_back=takes_back)


def test_version_is_adopted_and_both_losses_are_told(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    client = careful()
    roll_out(service, 0.5)
    visit = client.run_once()
    assert visit.outcome == "accepted"
    [report] = service.adoptions
    assert visit.adoption == report
    assert (report.outcome, report.reason, report.example_count) == ("adopted", "not_worse", 3)
    assert report.new_loss == pytest.approx(loss_of(0.5))
    assert report.former_loss == pytest.approx(loss_of(0.25))
    assert outcomes(events) == [Adopted]
    assert b_in_use(client.adapters) == 0.5
    current = client.adapters.current()
    assert current is not None
    assert (current.kind, current.round_index) == ("rollout", 5)


@pytest.mark.parametrize("adoption", ["careful", "always"])
def test_worse_version_is_kept_out_where_the_app_says_so_and_told_in_any_case(
    service: FakeService, careful: MakeClient, events: list[Event], adoption: str
) -> None:
    client = careful() if adoption == "careful" else careful(adoption=type(CAREFUL)())
    roll_out(service, 0.0)
    client.run_once()
    [report] = service.adoptions
    assert report.new_loss == pytest.approx(loss_of(0.0))
    assert report.former_loss == pytest.approx(loss_of(0.25))
    if adoption == "careful":
        assert (report.outcome, report.reason, b_in_use(client.adapters)) == ("kept", "worse", 0.25)
        assert outcomes(events) == [NotAdopted]
    else:
        assert (report.outcome, b_in_use(client.adapters)) == ("adopted", 0.0)


def test_round_replaces_no_version_that_was_rolled_out(service: FakeService, careful: MakeClient) -> None:
    client = careful()
    roll_out(service, 0.5)
    client.run_once()
    service.offer = FakeService().offer
    service.global_adapter = adapter_of(4, b=2.0)
    client.run_once()
    assert b_in_use(client.adapters) == 0.5
    assert client.adapters.use("global").kind == "global"  # the app may all the same


def test_version_is_taken_back_unasked_and_the_one_after_it_is_forgotten(
    service: FakeService, careful: MakeClient
) -> None:
    client = careful()
    roll_out(service, 0.5)
    client.run_once()
    roll_out_next(service, 0.0, 4, takes_back=True)  # though it is worse
    client.run_once()
    assert [report.reason for report in service.adoptions] == ["not_worse", "taken_back"]
    assert service.adoptions[1].outcome == "adopted"
    assert b_in_use(client.adapters) == 0.0
    assert client.adapters.index().before is None


def test_app_that_follows_its_own_training_keeps_it(service: FakeService, careful: MakeClient) -> None:
    client = careful()
    own = client.adapters.use("local")
    roll_out(service, 2.0)
    client.run_once()
    [report] = service.adoptions
    assert (report.outcome, report.reason, report.new_loss) == ("kept", "own_choice", None)
    assert own.is_same(client.adapters.current())


def test_device_without_an_adapter_compares_with_the_model_itself(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.held_out.put("snow and ice and", "cold")
    roll_out(service, 0.5)
    client.run_once()
    [report] = service.adoptions
    assert report.former_loss == pytest.approx(np.log(2))  # of logits that are equal
    assert report.new_loss == pytest.approx(loss_of(0.5))
    assert b_in_use(client.adapters) == 0.5


def test_device_that_holds_nothing_out_adopts_and_tells_no_loss(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    roll_out(service, 0.5)
    client.run_once()
    [report] = service.adoptions
    assert (report.outcome, report.reason, report.new_loss) == ("adopted", "not_compared", None)


def test_device_without_any_example_does_not_say_that_it_can_adopt(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    client.examples.clear()
    client.run_once()
    assert [told.abilities for told in service.check_ins] == [("adopt", "mask"), ()]


def test_version_that_was_adopted_before_its_report_arrived_is_told_the_same_again(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    client = careful()
    roll_out(service, 0.5)
    # Check-in, start and adapter come through; the report does not, as often as it is tried.
    service.faults = [None, None, None, *[httpx.ConnectError("the line is gone")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert b_in_use(client.adapters) == 0.5
    assert service.adoptions == []
    client.run_once()
    [report] = service.adoptions
    assert (report.outcome, report.reason) == ("adopted", "not_worse")
    assert report.former_loss == pytest.approx(loss_of(0.25))
    assert outcomes(events) == [Adopted]


def test_version_whose_loss_is_no_number_is_given_back(service: FakeService, careful: MakeClient) -> None:
    client = careful()
    roll_out(service, 1e38)
    visit = client.run_once()
    assert (visit.outcome, b_in_use(client.adapters)) == ("failed", 0.25)
    assert [failure.code for failure in service.failures] == [visit.code]


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
service.offer = service.offer.model_copy(update={"kind": "adopt", "assignment_id": "ask-5"})
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


@pytest.mark.parametrize(("kills", "outcome"), [(1, "accepted"), (2, "failed")])
def test_device_that_is_killed_over_a_version_begins_again_and_gives_it_back_the_second_time(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, kills: int, outcome: str
) -> None:
    for _ in range(kills):
        run_until_killed(KILLED, folder.root)
    client = make_client()
    assert client.adapters.current() is None
    roll_out(service, 0.5)
    assert client.run_once().outcome == outcome
    assert [failure.code for failure in service.failures] == ["device_too_small"] * (kills - 1)
    # What is rolled out next has nothing to do with it.
    roll_out_next(service, 0.75, 6)
    assert client.run_once().outcome == "accepted"
    assert b_in_use(client.adapters) == 0.75
