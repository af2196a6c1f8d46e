"""What rounding leaves out of an update: kept on the device, and sent with the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from device_tables import keep_for_run, kept_for_runs, stored_parts
from fake_bundle import SPEC, adapter_of, lora_b_of
from fake_service import FakeService
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load

from edge_sdk.client import EdgeClient
from edge_sdk.folder import DeviceFolder
from edge_sdk.training.error_feedback import contract_with_feedback
from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.algebra import truncate
from hetlora.errors import ServiceUnreachable
from hetlora.messages.device import Adaptation
from hetlora.partial import expand
from hetlora.rounding import scales_key
from hetlora.states import AssignmentState
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import adapter_to_bytes, factor_keys, to_tensors

MakeClient = Callable[..., EdgeClient]
KEYS = LORA_A, LORA_B = factor_keys("query")
INT8 = Adaptation(upload_precision="int8", error_feedback=True)
NUMBERS = st.floats(-1, 1, width=32)


def adapters(rank: int = 2) -> st.SearchStrategy[Adapter]:
    lora_A, lora_B = (hnp.arrays(np.float32, shape, elements=NUMBERS) for shape in ((rank, 4), (6, rank)))
    return st.builds(lambda a, b: Adapter(SPEC, {"query": LoraFactors(a, b)}), lora_A, lora_B)


def steps_of(data: bytes, precision: str) -> dict[str, Any]:
    """The largest step between two numbers that each entry of an update could have."""
    tensors = load(data)
    if precision == "int8":
        return {key: tensors[scales_key(key)] for key in KEYS}
    return {key: np.spacing(np.abs(tensors[key])) for key in KEYS}


@pytest.mark.parametrize("precision", ["float16", "int8"])
@given(st.lists(st.tuples(adapters(), adapters()), min_size=1, max_size=12))
def test_sum_of_what_the_service_saw_is_what_was_trained_but_for_half_a_step(
    precision: Any, rounds: list[tuple[Adapter, Adapter]]
) -> None:
    adaptation = Adaptation(upload_precision=precision, error_feedback=True)
    trained_sum, seen_sum = dict.fromkeys(KEYS, 0.0), dict.fromkeys(KEYS, 0.0)
    errors: dict[str, Tensor] = {}
    for received, trained in rounds:
        data, errors = contract_with_feedback(trained, adaptation, received, errors)
        seen = to_tensors(expand(data, SPEC, adaptation, received))
        for key in KEYS:
            before = to_tensors(received)[key].astype(np.float64)
            trained_sum[key] += to_tensors(trained)[key] - before
            seen_sum[key] += seen[key] - before
    # Beside half a step of the last round: float32's own roundings, of that sum and of the errors kept.
    float32_slack = 4 * np.finfo(np.float32).eps
    for key, step in steps_of(data, precision).items():
        missing = np.abs(trained_sum[key] - seen_sum[key])
        assert (missing <= step / 2 + float32_slack).all()
        assert np.abs(trained_sum[key] - seen_sum[key] - errors[key]).max() <= len(rounds) * 1e-8


def test_change_too_small_for_a_step_arrives_once_enough_of_it_has_gathered() -> None:
    # The first column goes by 127, so that a step is 1; the second by 0.25, a quarter of one.
    received = Adapter(SPEC, {"query": LoraFactors(np.zeros((1, 4)), np.zeros((6, 1)))})
    trained = Adapter(SPEC, {"query": LoraFactors([[127, 0.25, 0, 0]], np.zeros((6, 1)))})  # type: ignore[arg-type]
    errors: dict[str, Tensor] = {}
    seen = []
    for _ in range(8):
        data, errors = contract_with_feedback(trained, INT8, received, errors)
        seen.append(int(load(data)[LORA_A][0, 1]))
    assert seen == [0, 0, 1, 0, 0, 0, 1, 0]  # 0.5 goes to the even number, 0; then 0.75 to 1


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_errors_are_cut_or_filled_to_another_rank(first: int, second: int) -> None:
    def received(rank: int) -> Adapter:
        return Adapter(SPEC, {"query": LoraFactors(np.zeros((rank, 4)), np.zeros((6, rank)))})

    lora_A = np.array([[127, 0.25, 0, 0], [127, 0.25, 0, 0]])
    trained = Adapter(SPEC, {"query": LoraFactors(lora_A, np.zeros((6, 2)))})
    _, errors = contract_with_feedback(truncate(trained, first), INT8, received(first), {})
    _, errors = contract_with_feedback(truncate(trained, second), INT8, received(second), errors)
    # What both rounds left out of the first rank; the second rank begins anew, or is gone.
    assert errors[LORA_A][:, 1].tolist() == [0.5, 0.25][:second]


def test_errors_of_a_factor_that_is_not_sent_wait_for_its_turn() -> None:
    received = adapter_of(2, a=0, b=0)
    trained = Adapter(SPEC, {"query": LoraFactors(np.full((2, 4), 0.3), np.full((6, 2), 0.7))})
    alone: dict[str, Any] = {"upload_precision": "float16", "error_feedback": True}
    _, first = contract_with_feedback(trained, Adaptation(trained="lora_B", **alone), received, {})
    _, both = contract_with_feedback(trained, Adaptation(trained="lora_A", **alone), received, first)
    assert first.keys() == {LORA_B}
    assert (both[LORA_B] == first[LORA_B]).all()
    assert (both[LORA_A] == np.float32(0.3) - np.float32(np.float16(np.float32(0.3)))).all()


def errors_in(folder: DeviceFolder, run_id: str = "run-1") -> dict[str, np.ndarray]:
    return load(kept_for_runs(folder, "rounding_errors")[run_id])


@pytest.fixture
def quantising(service: FakeService) -> FakeService:
    """Asks for int8 of lora_B, whose columns go 7/8 of the way from numbers that are no multiples to 1."""
    rng = np.random.default_rng(0)
    lora_B = rng.uniform(-1, 1, (6, 4))
    service.global_adapter = Adapter(SPEC, {"query": LoraFactors(np.ones((4, 4)), lora_B)})
    service.adaptation = INT8
    return service


def test_update_in_int8_is_a_quarter_and_what_it_lacks_comes_with_the_next(
    quantising: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    received = lora_b_of(quantising.global_adapter).astype(np.float64)
    trained = received + 0.875 * (1 - received)
    for count in range(1, 6):
        assert client.run_once().outcome == "accepted"
        sent = load(quantising.bodies[-1])
        assert (sent[LORA_B].dtype, sent[LORA_A].dtype) == (np.int8, np.int8)
        seen = sum(lora_b_of(update) - received for update in quantising.updates)
        step = sent[scales_key(LORA_B)].astype(np.float64)
        assert step.min() > 1e-3
        assert (np.abs(count * (trained - received) - seen) <= step / 2 + 1e-6).all()
    kept = errors_in(folder)
    assert kept.keys() == {LORA_A, LORA_B}
    np.testing.assert_allclose(kept[LORA_B], 5 * (trained - received) - seen, atol=1e-6)


def test_plan_that_asks_for_no_feedback_keeps_nothing(
    quantising: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    quantising.adaptation = Adaptation(upload_precision="int8")
    assert make_client().run_once().outcome == "accepted"
    assert load(quantising.bodies[0])[LORA_B].dtype == np.int8
    assert kept_for_runs(folder, "rounding_errors") == {}


def test_update_that_did_not_count_leaves_the_errors_as_they_were(
    quantising: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    before = errors_in(folder)[LORA_B]
    quantising.receipts = [AssignmentState.DISCARDED]
    assert client.run_once().outcome == "discarded"
    assert (errors_in(folder)[LORA_B] == before).all()
    assert client.run_once().outcome == "accepted"
    assert not (errors_in(folder)[LORA_B] == before).all()


def test_errors_of_an_update_that_found_no_service_count_when_it_is_delivered(
    quantising: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    quantising.faults = [None, None, None, None, None, None, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        make_client().run_once()
    assert kept_for_runs(folder, "rounding_errors") == {}
    assert make_client().run_once().outcome == "accepted"
    assert errors_in(folder).keys() == {LORA_A, LORA_B}
    assert stored_parts(folder) == set()


OTHER_WIDTH = tensors_to_bytes({LORA_B: np.ones((5, 4), np.float32)})
OTHER_MODULE = tensors_to_bytes({factor_keys("key")[1]: np.ones((6, 4), np.float32)})
NO_FACTOR = tensors_to_bytes({LORA_B: np.ones(24, np.float32)})


@pytest.mark.parametrize(
    "kept",
    [None, b"", b"damaged", adapter_to_bytes(adapter_of(2))[:-8], OTHER_WIDTH, OTHER_MODULE, NO_FACTOR],
)
def test_device_that_lost_its_errors_begins_with_none(
    kept: bytes | None, quantising: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    keep_for_run(folder, "rounding_errors", "run-1", kept)
    assert client.run_once().outcome == "accepted"
    assert quantising.bodies[1] == quantising.bodies[0]


def test_errors_are_kept_for_each_run(
    quantising: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    for run_id in ("run-1", "run-2", "run-1"):
        assert quantising.offer is not None
        quantising.offer = quantising.offer.model_copy(update={"run_id": run_id})
        client.run_once()
    first, second, third = quantising.bodies
    assert first == second != third
    assert kept_for_runs(folder, "rounding_errors").keys() == {"run-1", "run-2"}


def test_change_that_float16_does_not_reach_is_given_back(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    service.global_adapter = adapter_of(4, b=-1e6)
    service.adaptation = Adaptation(upload_precision="float16", error_feedback=True)
    assert make_client().run_once().code == "non_finite_values"
    assert service.bodies == []
