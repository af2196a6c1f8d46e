"""What a device keeps of a round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from adapter_rounds import Opener, adapter_files, b_in_use, b_of, offer_round
from fake_bundle import adapter_of
from fake_runtime import Opened
from fake_service import FakeService

from edge_sdk.adapters.adapters import Adapters
from edge_sdk.adapters.index import AdapterKind
from edge_sdk.client import EdgeClient
from edge_sdk.folder import DeviceFolder
from hetlora.adapter import LoraFactors
from hetlora.errors import NoAdapter
from hetlora.messages.device import Adaptation
from hetlora.plan_adapter import sent_tensors
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import factor_keys, factor_tensors

MakeClient = Callable[..., EdgeClient]


def test_before_the_first_round_there_is_no_adapter(make_client: MakeClient) -> None:
    adapters = make_client().adapters
    assert adapters.current() is None
    assert adapters.last_comparison() is None
    for asked in (adapters.model, adapters.classifier, adapters.roll_back, lambda: adapters.use("local")):
        with pytest.raises(NoAdapter):
            asked()


def test_only_adapters_that_have_a_place_are_kept_whatever_the_number_of_rounds(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    for index in range(5):
        offer_round(service, index, b=index / 8)
        client.run_once()
    index = client.adapters.index()
    assert [own.round_index for own in index.stored().values()] == [4, 3, 4, 4]
    assert adapter_files(folder) == {f"{digest}.safetensors" for digest in index.file_digests()}
    assert len(adapter_files(folder)) == 3  # the newest global one is in use


def test_local_adapter_is_kept_as_it_was_before_it_was_pruned(
    service: FakeService, make_client: MakeClient
) -> None:
    assert service.offer is not None
    training = service.offer.training.model_copy(update={"pruning_decay": 0.5})
    service.offer = service.offer.model_copy(update={"training": training})
    offer_round(service, 0, b=2)  # lora_B shrinks to 1, which self-pruning answers
    client = make_client()
    client.run_once()
    assert service.reports[0].rank < 4
    assert client.adapters.use("local").rank == 4
    assert b_in_use(client.adapters) == 1.125


def test_everything_that_a_model_stands_under_is_kept_with_the_adapter(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, opened: Opened
) -> None:
    frozen = {"query": LoraFactors(np.full((7, 4), 3), np.full((6, 7), 5))}
    service.frozen = tensors_to_bytes(factor_tensors(frozen))
    service.adaptation = Adaptation(trained="lora_B", amplification=2.0)
    make_client(runtime=opened).run_once()
    adapters = Adapters(folder, opener=(opener := Opener()))
    adapters.model()
    [(bundle, fed)] = opener.opened
    current = adapters.current()
    assert current is not None
    assert fed is not None
    whole = adapters.read(current)[1]
    assert whole.how.frozen is not None
    assert (bundle.digest, b_of(whole.adapter)) == (service.bundle.sha256, 0.25)
    assert whole.how.adaptation == service.adaptation
    np.testing.assert_array_equal(whole.how.frozen["query"].lora_A, frozen["query"].lora_A)
    own, (key_A, key_B) = whole.adapter.factors["query"], factor_keys("query")
    np.testing.assert_array_equal(fed[key_A], np.concatenate([2 * own.lora_A, np.full((7, 4), 3)]))
    np.testing.assert_array_equal(fed[key_B], np.concatenate([own.lora_B, np.full((6, 7), 5)], axis=1))
    assert len(adapter_files(folder)) == 3  # both adapters, and once what both have


def test_cores_are_kept_as_sent_and_as_trained(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    service.adaptation = Adaptation(trained="core")
    service.plan_adapter = tensors_to_bytes(
        sent_tensors(adapter_of(4), {"query": np.eye(4, dtype=np.float32)})
    )
    client = make_client()
    client.run_once()
    kinds: tuple[AdapterKind, AdapterKind] = ("global", "local")
    # Columns sum up to 1, and go three quarters of the way to 4 in each of three steps: 3 - 3/64 more.
    for kind, change in zip(kinds, (0, (3 - 3 / 64) / 4), strict=True):
        _, whole = client.adapters.read(client.adapters.use(kind))
        np.testing.assert_array_equal(whole.how.cores["query"], np.eye(4) + change)


def test_private_lora_b_is_in_the_global_adapter_as_evaluations_have_it(
    service: FakeService, make_client: MakeClient
) -> None:
    service.adaptation = Adaptation(private_lora_B=True)
    client = make_client()
    client.run_once()
    client.run_once()
    assert b_in_use(client.adapters) == 0.90625


def test_device_that_cannot_keep_adapters_delivers_its_update(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    folder.adapters.rmdir()
    folder.adapters.write_text("a file where the folder was")
    assert client.run_once().outcome == "accepted"
    assert len(service.updates) == 1
    assert client.adapters.current() is None


def test_nothing_but_the_rounds_messages_reaches_the_service(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    told = len(service.requests)
    client.adapters.use("local")
    client.adapters.roll_back()
    client.adapters.last_comparison()
    assert len(service.requests) == told
