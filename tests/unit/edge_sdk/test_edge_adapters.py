"""What a device keeps of a round, and what its app can do with it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable

import numpy as np
import pytest
from adapter_rounds import Opener, b_in_use, b_of, fed_b, offer_round
from fake_bundle import adapter_of
from fake_runtime import Opened
from fake_service import FakeService
from numpy.typing import NDArray

from edge_sdk.adapters.adapters import Adapters
from edge_sdk.adapters.classification import TextClassifier
from edge_sdk.adapters.index import AdapterKind
from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, Event
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes.base import Batch
from hetlora.adapter import Adapter, LoraFactors
from hetlora.errors import AdapterUnusable, BundleInvalid, NoAdapter
from hetlora.messages.device import Adaptation
from hetlora.plan_adapter import sent_tensors
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import factor_keys, factor_tensors

MakeClient = Callable[..., EdgeClient]


def adapter_files(folder: DeviceFolder) -> set[str]:
    return {path.name for path in folder.adapters.glob("*.safetensors")}


def test_before_the_first_round_there_is_no_adapter(make_client: MakeClient) -> None:
    adapters = make_client().adapters
    assert adapters.current() is None
    assert adapters.report() is None
    for asked in (adapters.model, adapters.classifier, adapters.roll_back, lambda: adapters.use("local")):
        with pytest.raises(NoAdapter):
            asked()


def test_after_a_round_the_global_adapter_is_in_use_and_the_local_one_can_be(
    service: FakeService, make_client: MakeClient
) -> None:
    events: list[Event] = []
    client = make_client(on_event=events.append)
    client.run_once()
    current = client.adapters.current()
    assert current is not None
    assert (current.kind, current.run_id, current.round_index, current.rank) == ("global", "run-1", 0, 4)
    assert (current.loss, current.accuracy, current.bundle) == (None, None, service.bundle.sha256)
    assert b_in_use(client.adapters) == 0.25
    assert client.adapters.use("local").kind == "local"
    assert b_in_use(client.adapters) == 0.90625
    [adopted] = [event for event in events if isinstance(event, Adopted)]
    assert adopted.comparison == client.adapters.report()
    assert adopted.comparison.reason == "every new adapter is, and nothing was compared"


def test_new_adapters_of_the_kind_in_use_are_adopted(service: FakeService, make_client: MakeClient) -> None:
    client = make_client()
    client.run_once()
    client.adapters.use("local")
    offer_round(service, 1, b=0.5)
    client.run_once()
    assert b_in_use(client.adapters) == 0.9375
    client.adapters.use("global")
    offer_round(service, 2, b=0.75)
    client.run_once()
    assert b_in_use(client.adapters) == 0.75


def test_roll_back_goes_one_back_and_the_next_round_is_adopted_again(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    offer_round(service, 1, b=0.5)
    client.run_once()
    assert client.adapters.roll_back().round_index == 0
    assert b_in_use(client.adapters) == 0.25
    with pytest.raises(NoAdapter, match="roll back"):
        client.adapters.roll_back()
    assert client.adapters.use("global").round_index == 1  # and forth
    client.adapters.roll_back()
    offer_round(service, 2, b=0.75)
    client.run_once()
    assert b_in_use(client.adapters) == 0.75


def test_roll_back_of_a_choice_of_kind_takes_the_kind_back(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    client.adapters.use("local")
    client.adapters.roll_back()
    offer_round(service, 1, b=0.5)
    client.run_once()
    assert b_in_use(client.adapters) == 0.5


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


def test_app_answers_in_two_lines_under_the_adapter_in_use(
    make_client: MakeClient, folder: DeviceFolder
) -> None:
    make_client().run_once()
    adapters = Adapters(folder, opener=Opener())
    answer = adapters.classifier().classify("snow and ice")
    assert answer.label == "cold"
    assert answer.probability == pytest.approx(1 / (1 + np.exp(-0.25)))
    adapters.use("local")
    assert adapters.classifier().classify("sun").probability == pytest.approx(1 / (1 + np.exp(-0.90625)))
    with pytest.raises(BundleInvalid, match="no text"):
        adapters.generator()


def test_generator_goes_on_under_the_adapter_in_use(make_client: MakeClient, folder: DeviceFolder) -> None:
    texts = FakeService(task="text-generation")
    make_client(http=texts.http).run_once()
    opener = Opener()
    adapters = Adapters(folder, opener=opener)
    with pytest.raises(BundleInvalid):
        adapters.classifier()
    adapters.generator()
    assert [fed_b(factors) for _, factors in opener.opened if factors] == [0.25, 0.25]


def test_adapter_whose_bundle_is_gone_is_told_so_and_nothing_is_deleted(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    before = adapter_files(folder)
    shutil.rmtree(folder.bundles / service.bundle.sha256)
    fresh = Adapters(folder, opener=Opener())
    for asked in (fresh.model, lambda: fresh.use("local")):
        with pytest.raises(AdapterUnusable, match="not on this device") as caught:
            asked()
        assert caught.value.code == "adapter_unusable"
    current = fresh.current()
    assert current is not None
    assert current.kind == "global"  # as it was
    assert adapter_files(folder) == before
    client.run_once()
    fresh.model()  # the bundle is there again


def test_adapter_of_a_bundle_before_goes_with_that_bundle(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    make_client().run_once()
    other = FakeService(change=lambda manifest: manifest.model_copy(update={"max_tokens": 12}))
    client = make_client(http=other.http)
    client.run_once()
    opener = Opener()
    adapters = Adapters(folder, opener=opener)
    adapters.model()
    adapters.roll_back()
    adapters.model()
    assert [bundle.digest for bundle, _ in opener.opened] == [other.bundle.sha256, service.bundle.sha256]
    shutil.rmtree(folder.bundles / service.bundle.sha256)
    with pytest.raises(AdapterUnusable):
        Adapters(folder, opener=opener).model()


def test_damaged_weights_are_found_when_a_process_first_answers_with_them(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    make_client().run_once()
    weights = folder.bundles / service.bundle.sha256 / "weights" / "base.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(AdapterUnusable, match="no longer as it was"):
        Adapters(folder, opener=Opener()).model()


def test_device_that_cannot_keep_adapters_delivers_its_update(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    folder.adapters.rmdir()
    folder.adapters.write_text("a file where the folder was")
    assert client.run_once().outcome == "accepted"
    assert len(service.updates) == 1
    assert client.adapters.current() is None


def test_app_reads_and_chooses_in_other_threads_while_rounds_go_on(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    stop, seen, faults = threading.Event(), set(), []

    def answer() -> None:
        opener = Opener()
        own = Adapters(folder, opener=opener)
        while not stop.is_set():
            try:
                own.use("local")
                own.model()
                own.use("global")
                own.classifier().classify("snow")
            except Exception as error:
                faults.append(error)
                return
        seen.update(fed_b(factors) for _, factors in opener.opened if factors is not None)

    threads = [threading.Thread(target=answer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for index in range(1, 9):
        offer_round(service, index, b=index / 16)
        assert client.run_once().outcome == "accepted"
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    wholes = [0.25, *(index / 16 for index in range(1, 9))]
    assert seen <= {*wholes, *(1 - (1 - b) / 8 for b in wholes)}
    assert len(adapter_files(folder)) <= 4


def test_nothing_but_the_rounds_messages_reaches_the_service(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    told = len(service.requests)
    client.adapters.use("local")
    client.adapters.roll_back()
    client.adapters.report()
    assert len(service.requests) == told


def test_classifier_cuts_what_is_too_long(make_client: MakeClient, folder: DeviceFolder) -> None:
    make_client().run_once()
    current = Adapters(folder).current()
    assert current is not None
    bundle, _ = Adapters(folder).read(current)
    batches: list[Batch] = []

    class Watching:
        def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
            batches.append(batch)
            return np.array([[0, np.log(3)]], np.float32)

    answer = TextClassifier(bundle, Watching()).classify("snow " * 99)
    assert (answer.label, round(answer.probability, 6)) == ("warm", 0.75)
    assert batches[0]["input_ids"].shape == (1, 16)
