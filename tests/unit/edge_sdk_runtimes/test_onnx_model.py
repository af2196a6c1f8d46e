from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxModel
from edge_sdk.training.parametrisation import Parametrisation, TrainedNumbers
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, initial_adapter
from hetlora.algebra import truncate, zero_pad
from hetlora.bundle import Bundle
from hetlora.errors import DataError, SpecMismatch
from hetlora.messages.device import Adaptation
from hetlora.tensors import to_tensors

MakeAdapter = Callable[[int], Adapter]

TOLERANCE = 1e-5  # zero rows and columns may change the order of sums


def _close(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.abs(left - right).max() <= TOLERANCE)


def test_logits_have_a_column_for_each_label(tiny_bundle: Bundle, batch: Batch) -> None:
    logits = OnnxModel(tiny_bundle).logits(batch)
    assert logits.shape == (4, 3)
    assert logits.dtype == np.float32
    assert np.abs(logits).max() <= 20 + TOLERANCE  # 20 times a cosine


def test_no_adapter_is_the_same_as_a_new_one(tiny_bundle: Bundle, batch: Batch) -> None:
    new = initial_adapter(tiny_bundle.manifest.adapter, 4, np.random.default_rng(0))  # lora_B is zero
    assert _close(OnnxModel(tiny_bundle).logits(batch), OnnxModel(tiny_bundle, to_tensors(new)).logits(batch))


def test_adapter_of_one_call_replaces_the_own_one_for_that_call(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, batch: Batch
) -> None:
    model = OnnxModel(tiny_bundle, to_tensors(trained_adapter(2)))
    own = model.logits(batch)
    other = model.logits(batch, adapter=trained_adapter(5))
    assert (other == OnnxModel(tiny_bundle, to_tensors(trained_adapter(5))).logits(batch)).all()
    assert not _close(own, other)
    assert (model.logits(batch) == own).all()


def test_padded_adapter_gives_the_same_logits(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, batch: Batch
) -> None:
    model = OnnxModel(tiny_bundle, to_tensors(trained_adapter(2)))
    assert _close(model.logits(batch), model.logits(batch, adapter=zero_pad(trained_adapter(2), 8)))


def test_modules_may_have_unequal_ranks(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, batch: Batch
) -> None:
    adapter = trained_adapter(4)
    first = adapter.spec.modules[0].name
    unequal = Adapter(adapter.spec, {**adapter.factors, first: truncate(adapter, 0).factors[first]})
    logits = OnnxModel(tiny_bundle, to_tensors(unequal)).logits(batch)
    assert not _close(logits, OnnxModel(tiny_bundle, to_tensors(adapter)).logits(batch))
    assert not _close(logits, OnnxModel(tiny_bundle).logits(batch))


def test_what_stood_beside_an_adapter_in_training_stands_beside_it_in_inference(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, batch: Batch
) -> None:
    adapter, frozen = trained_adapter(2), trained_adapter(3).factors
    how = Parametrisation(Adaptation(amplification=2.0), frozen)
    together = {
        name: LoraFactors(
            np.concatenate([2 * own.lora_A, frozen[name].lora_A]),
            np.concatenate([own.lora_B, frozen[name].lora_B], axis=1),
        )
        for name, own in adapter.factors.items()
    }
    expected = OnnxModel(tiny_bundle, to_tensors(Adapter(adapter.spec, together))).logits(batch)
    assert _close(OnnxModel(tiny_bundle, TrainedNumbers(adapter, how).fed()).logits(batch), expected)
    assert not _close(OnnxModel(tiny_bundle, to_tensors(adapter)).logits(batch), expected)


def test_labels_in_the_batch_are_ignored(tiny_bundle: Bundle, batch: Batch) -> None:
    without = {name: array for name, array in batch.items() if name != "labels"}
    model = OnnxModel(tiny_bundle)
    assert (model.logits(batch) == model.logits(without)).all()


def test_adapter_of_another_bundle_is_refused(tiny_bundle: Bundle, batch: Batch) -> None:
    spec = tiny_bundle.manifest.adapter
    other = initial_adapter(AdapterSpec(spec.modules, 3.0, spec.max_rank), 2, np.random.default_rng(0))
    with pytest.raises(SpecMismatch):
        OnnxModel(tiny_bundle).logits(batch, adapter=other)
    fewer = initial_adapter(
        AdapterSpec(spec.modules[1:], spec.scaling, spec.max_rank), 2, np.random.default_rng(0)
    )
    with pytest.raises(SpecMismatch, match="2 missing"):
        OnnxModel(tiny_bundle, to_tensors(fewer))


def test_missing_input_is_named(tiny_bundle: Bundle) -> None:
    with pytest.raises(DataError, match="expected attention_mask"):
        OnnxModel(tiny_bundle).logits({"input_ids": np.ones((1, 3), dtype=np.int64)})


def test_token_outside_the_vocabulary_is_refused(tiny_bundle: Bundle, batch: Batch) -> None:
    with pytest.raises(DataError, match="refuses the batch"):
        OnnxModel(tiny_bundle).logits({**batch, "input_ids": np.full((4, 6), 10**6)})
