"""What engines are given to read a round's updates with."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from fake_training import RANK, SPEC

from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.rule import PLAIN, UpdateRef
from aggregator_service.aggregation.stacks import unstacked
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.worker.stored_updates import StoredUpdates
from hetlora.adapter import initial_adapter
from hetlora.errors import ServiceFailed
from hetlora.messages.device import Adaptation
from hetlora.tensors import adapter_to_bytes


def test_source_that_has_read_updates_travels_without_what_it_remembers(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("updates", "objects", "incoming")]
    for folder in folders:
        folder.mkdir()
    updates, objects = (BlobFolder(folders[2], folder) for folder in folders[:2])
    adapter = initial_adapter(SPEC, RANK, np.random.default_rng(1))
    sent = objects.put(adapter_to_bytes(adapter)).sha256
    ref = UpdateRef(updates.put(adapter_to_bytes(adapter)).sha256, 1, sent, RANK)
    source = StoredUpdates(updates, objects, UpdateReader(SPEC), {ref.plan_key: PLAIN}, compared=True)
    travelling = pickle.dumps(source)
    read = source.load(ref)
    assert pickle.dumps(source) == travelling
    arrived = pickle.loads(travelling).load(ref)
    np.testing.assert_array_equal(arrived.adapter.values, read.adapter.values)
    assert arrived.received is not None


def test_what_a_device_was_sent_is_not_read_where_nobody_compares_with_it(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("updates", "objects", "incoming")]
    for folder in folders:
        folder.mkdir()
    updates, objects = (BlobFolder(folders[2], folder) for folder in folders[:2])
    data = adapter_to_bytes(initial_adapter(SPEC, RANK, np.random.default_rng(1)))
    ref = UpdateRef(updates.put(data).sha256, received_sha256="0" * 64, rank=RANK)
    read = [
        pickle.loads(pickle.dumps(StoredUpdates(updates, objects, UpdateReader(SPEC), plans, compared=False)))
        for plans in ({ref.plan_key: PLAIN}, {ref.plan_key: Adaptation(trained="lora_A")})
    ]
    assert read[0].load(ref).received is None
    with pytest.raises(ServiceFailed):  # one factor came, and the other is what was sent
        read[1].load(ref)
    with pytest.raises(ServiceFailed):
        read[0].sent_rank(ref.received_sha256)


def test_update_of_an_earlier_rounds_folder_is_found_there_and_counts_less(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("updates", "earlier", "objects", "incoming")]
    for folder in folders:
        folder.mkdir()
    updates, earlier, objects = (BlobFolder(folders[3], folder) for folder in folders[:3])
    adapters = [initial_adapter(SPEC, RANK, np.random.default_rng(seed)) for seed in range(2)]
    sent = objects.put(adapter_to_bytes(adapters[0])).sha256
    fresh = UpdateRef(updates.put(adapter_to_bytes(adapters[0])).sha256, 1, sent, RANK)
    stale = UpdateRef(earlier.put(adapter_to_bytes(adapters[1])).sha256, 1, sent, RANK, staleness=3)
    source = StoredUpdates(
        updates, objects, UpdateReader(SPEC), {fresh.plan_key: PLAIN}, True, {stale.sha256: earlier}
    )
    arrived = pickle.loads(pickle.dumps(source))
    assert [arrived.load(ref).trust for ref in (fresh, stale)] == [1.0, 0.5]
    assert adapter_to_bytes(unstacked(arrived.load(stale).adapter)) == adapter_to_bytes(adapters[1])
