"""An update is in memory a module at a time while it is validated, however large it is."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_device import FakeDevice
from service_operator import Operator

from aggregator_service.aggregation.rule import PLAIN
from aggregator_service.assignments.updates import keep_update, terms_of
from aggregator_service.assignments.validation import validate_update
from aggregator_service.service import Service
from aggregator_service.storage.folder import BlobFolder
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.lazy_adapter import LazyAdapter
from hetlora.messages.device import Adaptation
from hetlora.partial import contract
from hetlora.plan_adapter import open_sent
from hetlora.tensors import adapter_to_bytes

RANK, MODULES, FEATURES = 8, 32, 1024
# 65,536 bytes of adapter in each module, 2 MiB in all.
SPEC = AdapterSpec(
    tuple(ModuleSpec(f"layers.{number:02}", FEATURES, FEATURES) for number in range(MODULES)),
    scaling=1.0,
    max_rank=RANK,
)


def trained(sent: Adapter) -> Adapter:
    return Adapter(
        SPEC, {name: LoraFactors(own.lora_A + 1, own.lora_B + 1) for name, own in sent.factors.items()}
    )


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that was allocated at a time, numpy's arrays among it."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_peak_of_keeping_an_update_is_a_part_of_its_size(
    operator: Operator, device: FakeDevice, service: Service
) -> None:
    operator.run(operator.publish(SPEC), max_rank=RANK)
    plan = device.started_plan(RANK)
    update = adapter_to_bytes(trained(initial_adapter(SPEC, RANK, np.random.default_rng(1))))
    terms = terms_of(service, device.device_id, plan.assignment_id, "")
    with terms.folder.receive() as blob:
        blob.write(update)
        peak = peak_bytes(lambda: keep_update(service, terms, blob))
    assert len(update) > 2**21
    assert peak < len(update) / 2


@pytest.mark.parametrize(
    "adaptation",
    [
        pytest.param(PLAIN, id="whole"),
        pytest.param(Adaptation(trained="lora_A"), id="one factor"),
        pytest.param(Adaptation(selected_ranks=RANK * MODULES // 2), id="selected ranks"),
        pytest.param(Adaptation(upload_density=0.5), id="sparse"),
        pytest.param(Adaptation(upload_precision="float16"), id="float16"),
        pytest.param(Adaptation(upload_precision="int8"), id="int8"),
    ],
)
def test_peak_of_validation_follows_the_largest_module_whatever_was_asked_for(
    tmp_path: Path, adaptation: Adaptation
) -> None:
    (tmp_path / "incoming").mkdir()
    blobs = BlobFolder(tmp_path / "incoming", tmp_path / "blobs")
    sent = initial_adapter(SPEC, RANK, np.random.default_rng(1))
    sent_id = blobs.put(adapter_to_bytes(sent)).sha256
    update_id = blobs.put(contract(trained(sent), adaptation, sent)).sha256

    def validated() -> LazyAdapter:
        with blobs.opened(sent_id) as received, blobs.opened(update_id) as file:
            return validate_update(file, open_sent(received, SPEC), adaptation, min_rank=RANK, one_rank=True)

    assert validated().ranks == sent.ranks
    module_bytes = sent.size_bytes // MODULES
    # What was received, what came and what becomes of both; and a buffer of 2^18 bytes to hash files.
    assert peak_bytes(validated) < 8 * module_bytes + 2**18 + 2**17
