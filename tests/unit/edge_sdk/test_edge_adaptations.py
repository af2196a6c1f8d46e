"""Visits whose plan asks for part of an adapter, brings another one beside it, or cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fake_bundle import SPEC, adapter_of, lora_b_of
from fake_runtime import Opened
from fake_service import FakeService
from safetensors.numpy import load

from edge_sdk.client import EdgeClient
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import ServiceUnreachable
from hetlora.messages.device import Adaptation
from hetlora.partial_tensors import cores_from_bytes
from hetlora.plan_adapter import sent_tensors, sparse_tensors
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import adapter_to_bytes, factor_keys, factor_tensors

MakeClient = Callable[..., EdgeClient]
LORA_A, LORA_B = factor_keys("query")


def test_factor_that_is_trained_alone_is_all_that_is_sent(
    service: FakeService, make_client: MakeClient
) -> None:
    service.adaptation = Adaptation(trained="lora_B")
    assert make_client().run_once().outcome == "accepted"
    assert load(service.bodies[0]).keys() == {LORA_B}
    assert service.reports[0].rank == 4
    np.testing.assert_array_equal(lora_b_of(service.updates[0]), np.full((6, 4), 0.90625))


def test_selected_ranks_are_those_that_moved_most(service: FakeService, make_client: MakeClient) -> None:
    # Of lora_B, which goes to 1, the third column is farthest from it.
    lora_B = np.full((6, 4), 0.9)
    lora_B[:, 2] = 0
    service.global_adapter = Adapter(SPEC, {"query": LoraFactors(np.ones((4, 4)), lora_B)})
    service.adaptation = Adaptation(trained="lora_B", selected_ranks=1)
    make_client().run_once()
    sent = load(service.bodies[0])
    assert sent["base_model.model.query.ranks"].tolist() == [2]
    np.testing.assert_array_equal(sent[LORA_B], np.full((6, 1), 0.875))  # 0, 0.5, 0.75, 0.875


def test_sparse_change_is_uploaded_and_its_ranks_are_not_pruned(
    service: FakeService, make_client: MakeClient
) -> None:
    assert service.offer is not None
    training = service.offer.training.model_copy(update={"pruning_decay": 0.5})
    service.offer = service.offer.model_copy(update={"training": training})
    service.global_adapter = adapter_of(4, b=2)  # lora_B shrinks to 1, which self-pruning would answer
    service.adaptation = Adaptation(upload_density=0.25)
    make_client().run_once()
    # 16 + 24 numbers, a quarter of which is 10: the first of lora_B, which go from 2 to 1.5, 1.25, 1.125.
    sent = load(service.bodies[0])
    assert sent[f"{LORA_B}.positions"].tolist() == list(range(10))
    np.testing.assert_array_equal(sent[LORA_B], np.full(10, -0.875))
    assert sent[LORA_A].size == 0
    assert service.reports[0].rank == 4


def test_frozen_adapter_reaches_the_runtime_and_is_never_sent(
    service: FakeService, make_client: MakeClient, opened: Opened
) -> None:
    service.frozen = tensors_to_bytes(
        factor_tensors({"query": LoraFactors(np.full((7, 4), 3), np.full((6, 7), 5))})
    )
    assert make_client(runtime=opened).run_once().outcome == "accepted"
    assert "frozen" not in str(load(service.bodies[0]).keys())
    fed = opened.runtimes[0].fed[0]
    assert fed[LORA_A].tolist() == [[0.5] * 4] * 4 + [[3] * 4] * 7  # above the largest rank, 4
    assert fed[LORA_B].tolist() == [[0.25] * 4 + [5] * 7] * 6
    assert service.updates[0].rank == 4


def test_frozen_adapter_larger_than_any_is_not_fetched(service: FakeService, make_client: MakeClient) -> None:
    service.frozen = b"not this large"
    service.claimed_frozen_bytes = 2**31
    visit = make_client().run_once()
    assert visit.code == "body_too_large"
    assert "frozen adapter is too large; got 2147483648" in visit.reason
    assert service.fetched()[-1] == "global adapter"


def test_cores_are_trained_and_sent_alone(service: FakeService, make_client: MakeClient) -> None:
    begun = np.arange(16, dtype=np.float32).reshape(4, 4)
    service.adaptation = Adaptation(trained="core")
    service.plan_adapter = tensors_to_bytes(sent_tensors(adapter_of(4), {"query": begun}))
    assert make_client().run_once().outcome == "accepted"
    cores = cores_from_bytes(service.bodies[0], SPEC, 4)
    # lora_B R - 1 is (s - 4) / 4 in a column of R that sums up to s. Each step takes s three quarters of the
    # way to 4, a quarter of which is each number's.
    np.testing.assert_allclose(cores["query"], begun + 63 / 64 * (4 - begun.sum(axis=0)) / 4, rtol=1e-6)


@pytest.mark.parametrize("trained", ["core", "both"])
def test_plan_whose_cores_do_not_fit_is_given_back(
    trained: Any, service: FakeService, make_client: MakeClient
) -> None:
    service.adaptation = Adaptation(trained=trained)
    cores = {} if trained == "core" else {"query": np.eye(4, dtype=np.float32)}
    service.plan_adapter = tensors_to_bytes(sent_tensors(adapter_of(4), cores))
    assert make_client().run_once().code == "spec_mismatch"


def test_sparse_adapter_is_what_training_begins_with(
    service: FakeService, make_client: MakeClient, opened: Opened
) -> None:
    # The 16 numbers of lora_A are larger than the 24 of lora_B: two fifths of all 40 are those.
    service.plan_adapter = tensors_to_bytes(sparse_tensors(adapter_of(4, a=0.5, b=0.25), 0.4))
    make_client(runtime=opened).run_once()
    [began] = opened.began
    assert (began.factors["query"].lora_A == 0.5).all()
    assert not lora_b_of(began).any()


def test_partial_update_that_found_no_service_is_delivered_by_the_next_visit(
    service: FakeService, make_client: MakeClient, opened: Opened
) -> None:
    service.adaptation = Adaptation(private_lora_B=True)
    client = make_client(runtime=opened)
    client.run_once()
    service.faults = [None, None, None, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert client.run_once().outcome == "accepted"
    assert len(opened.began) == 2
    assert load(service.bodies[-1]).keys() == {LORA_A}


TWO = AdapterSpec((ModuleSpec("a", 4, 6), ModuleSpec("b", 4, 6)), scaling=2.0, max_rank=4)


def two_modules(rank_a: int, rank_b: int) -> Adapter:
    return Adapter(
        TWO,
        {
            name: LoraFactors(np.ones((rank, 4)), np.ones((6, rank)))
            for name, rank in (("a", rank_a), ("b", rank_b))
        },
    )


@pytest.mark.parametrize(("ranks", "accepted"), [((4, 0), True), ((3, 1), True), ((3, 2), False)])
def test_modules_may_share_the_ranks_of_a_plan_unequally(
    ranks: tuple[int, int], accepted: bool, make_client: MakeClient
) -> None:
    # At rank 2 each the adapter has 2 * (10 + 10) = 40 numbers, and so it has at (4, 0) and at (3, 1).
    service = FakeService(change=lambda manifest: manifest.model_copy(update={"adapter": TWO}))
    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"max_rank": 2})
    service.spec = TWO
    service.plan_adapter = adapter_to_bytes(two_modules(*ranks))

    client = make_client(http=service.http)
    visit = client.run_once()
    if accepted:
        assert service.updates[0].ranks == dict(zip("ab", ranks, strict=True))
        assert service.reports[0].rank == max(ranks)
    else:
        assert visit.code == "rank_out_of_range"
