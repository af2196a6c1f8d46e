"""Losses on what devices hold out, asked for by a run and told with its updates."""

from __future__ import annotations

import pytest
from fake_device import FakeDevice, report_of
from service_bundle import make_adapter
from service_operator import Operator

SCORES = {"held_out_loss_before": 0.75, "held_out_loss_after": 0.5}


@pytest.mark.parametrize("asked", [True, False])
def test_offer_asks_where_the_run_does(
    operator: Operator, device: FakeDevice, bundle: str, asked: bool
) -> None:
    operator.run(bundle, training={"evaluate": asked})
    training = device.offer()["training"]
    assert training.get("evaluate") is (True if asked else None)  # older devices know no such field


def test_operators_see_both_losses_beside_those_of_training(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, training={"evaluate": True})
    assignment_id, update = device.started(2), make_adapter(2)
    device.upload(assignment_id, update)
    assert device.submit(assignment_id, update, SCORES).json()["state"] == "accepted"
    [told] = operator.items(f"/runs/{run_id}/assignments")
    assert {name: told[name] for name in SCORES} == SCORES


def test_update_without_scores_is_taken_as_ever(operator: Operator, device: FakeDevice, bundle: str) -> None:
    run_id = operator.run(bundle, training={"evaluate": True})
    assignment_id, update = device.started(2), make_adapter(2)
    device.upload(assignment_id, update)
    assert not SCORES.keys() & report_of(update).keys()
    assert device.submit(assignment_id, update).json()["state"] == "accepted"
    [told] = operator.items(f"/runs/{run_id}/assignments")
    assert (told["held_out_loss_before"], told["held_out_loss_after"]) == (None, None)


@pytest.mark.parametrize("loss", [-0.1, 2e6])
def test_loss_that_means_nothing_is_refused(
    operator: Operator, device: FakeDevice, bundle: str, loss: float
) -> None:
    operator.run(bundle)
    assignment_id, update = device.started(2), make_adapter(2)
    device.upload(assignment_id, update)
    refused = device.submit(assignment_id, update, {"held_out_loss_after": loss})
    assert (refused.status_code, refused.json()["code"]) == (422, "malformed_message")
