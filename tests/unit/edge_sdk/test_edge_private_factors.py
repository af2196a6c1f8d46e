"""lora_B that stays on its device, over visits of one run and of several."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from device_tables import keep_for_run, kept_for_runs
from fake_bundle import adapter_of, lora_b_of
from fake_runtime import Opened
from fake_service import FakeService
from safetensors.numpy import load

from edge_sdk.client import EdgeClient
from edge_sdk.folder import DeviceFolder
from edge_sdk.session.run_tensors import KEPT_RUNS
from edge_sdk.training.private_factors import private_factors_to_bytes
from hetlora.messages.device import Adaptation
from hetlora.tensors import adapter_to_bytes, factor_keys

MakeClient = Callable[..., EdgeClient]
LORA_A, _ = factor_keys("query")


def test_private_lora_b_stays_and_the_next_round_begins_with_it(
    service: FakeService, make_client: MakeClient, opened: Opened, folder: DeviceFolder
) -> None:
    service.adaptation = Adaptation(private_lora_B=True)
    client = make_client(runtime=opened)
    client.run_once()
    client.run_once()
    assert [load(body).keys() for body in service.bodies] == [{LORA_A}, {LORA_A}]
    np.testing.assert_array_equal(lora_b_of(opened.began[0]), np.full((6, 4), 0.25))
    np.testing.assert_array_equal(lora_b_of(opened.began[1]), np.full((6, 4), 0.90625))
    np.testing.assert_array_equal(opened.began[1].factors["query"].lora_A, np.full((4, 4), 0.5))
    assert kept_for_runs(folder, "private_factors").keys() == {"run-1"}


@pytest.mark.parametrize(("first", "second"), [(4, 2), (2, 4)])
def test_private_lora_b_is_cut_or_filled_to_another_rank(
    first: int, second: int, service: FakeService, make_client: MakeClient, opened: Opened
) -> None:
    service.adaptation = Adaptation(private_lora_B=True)
    client = make_client(runtime=opened)
    for rank in (first, second):
        assert service.offer is not None
        service.offer = service.offer.model_copy(update={"max_rank": rank})
        client.run_once()
    expected = np.zeros((6, second))
    expected[:, : min(first, second)] = 0.90625
    np.testing.assert_array_equal(lora_b_of(opened.began[1]), expected)


@pytest.mark.parametrize("kept", [None, b"", b"damaged beyond repair", adapter_to_bytes(adapter_of(2))])
def test_device_that_lost_its_private_lora_b_begins_with_the_one_sent(
    kept: bytes | None, service: FakeService, make_client: MakeClient, opened: Opened, folder: DeviceFolder
) -> None:
    service.adaptation = Adaptation(private_lora_B=True)
    client = make_client(runtime=opened)
    client.run_once()
    keep_for_run(folder, "private_factors", "run-1", kept)
    assert client.run_once().outcome == "accepted"
    np.testing.assert_array_equal(lora_b_of(opened.began[1]), np.full((6, 4), 0.25))


def test_private_lora_b_of_two_runs_that_take_turns_is_kept_for_each(
    service: FakeService, make_client: MakeClient, opened: Opened
) -> None:
    client = make_client(runtime=opened)
    for run_id, private in [("run-1", True), ("run-2", True), ("run-3", False), ("run-1", True)]:
        assert service.offer is not None
        service.adaptation = Adaptation(private_lora_B=private)
        service.offer = service.offer.model_copy(update={"run_id": run_id})
        client.run_once()
    begun = [lora_b_of(adapter)[0, 0] for adapter in opened.began]
    assert begun == [0.25, 0.25, 0.25, 0.90625]  # three steps half of the way to 1 each


def test_private_lora_b_is_kept_for_the_newest_runs_alone(folder: DeviceFolder) -> None:
    names = [f"run-{number}" for number in range(KEPT_RUNS + 2)]
    for run_id in names:
        keep_for_run(folder, "private_factors", run_id, private_factors_to_bytes(adapter_of(2)))
    assert [*kept_for_runs(folder, "private_factors")] == names[2:]
