"""Models that answer under the adapter in use, and adapters that none can be opened with."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from adapter_rounds import Opener, adapter_files, fed_b
from fake_service import FakeService
from numpy.typing import NDArray

from edge_sdk.adapters.adapters import Adapters
from edge_sdk.adapters.classification import TextClassifier
from edge_sdk.client import EdgeClient
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes.base import Batch
from hetlora.adapter import Adapter
from hetlora.errors import AdapterUnusable, BundleInvalid

MakeClient = Callable[..., EdgeClient]


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
