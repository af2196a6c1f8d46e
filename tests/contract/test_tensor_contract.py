"""Literal tensors of this folder: what is refused, how numbers are rounded, which ranks pruning leaves."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import HetloraError
from hetlora.messages.device import Adaptation
from hetlora.partial import contract
from hetlora.plan_adapter import sent_from_bytes, sparse_tensors
from hetlora.rounding import rounded, scales_key
from hetlora.selection import kept_entries
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes, max_adapter_bytes

FOLDER = Path(__file__).parent
SPEC = AdapterSpec((ModuleSpec("h.0.k", 3, 2), ModuleSpec("h.0.q", 2, 2)), scaling=2.0, max_rank=2)


def literal(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def adapter_of(name: str) -> Adapter:
    return adapter_from_bytes(bytes.fromhex((FOLDER / name).read_text()), SPEC)


def bits_of(numbers: NDArray[Any]) -> list[str]:
    wide = {2: np.uint16, 4: np.uint32}[numbers.dtype.itemsize]
    return [f"{int(bits):0{2 * numbers.dtype.itemsize}x}" for bits in numbers.ravel().view(wide)]


@pytest.mark.parametrize("row", literal("tensor_files.json"), ids=lambda row: row["why"])
def test_file_is_taken_or_refused_as_pinned(row: dict[str, Any]) -> None:
    try:
        adapter_from_bytes(bytes.fromhex(row["file"]), SPEC)
        code = None
    except HetloraError as error:
        code = error.code
    assert code == row["code"]


def test_most_bytes_of_an_adapter_are_those_of_the_header_and_its_numbers() -> None:
    # Four keys of 36 letters and 2 quotation marks; 1024 for each of two modules, and 256; then 2 ranks of
    # 3 + 2 + 2 + 2 numbers of 4 bytes.
    assert max_adapter_bytes(SPEC) == 4 * 38 + 2 * 1024 + 256 + 2 * 9 * 4


def test_float16_has_the_pinned_bits() -> None:
    for single, half in literal("rounding.json")["float16"]:
        tensor = np.array([int(single, 16)], np.uint32).view(np.float32)
        assert bits_of(rounded({"a.weight": tensor}, "float16")["a.weight"]) == [half]


def test_int8_numbers_and_scales_are_the_pinned_ones() -> None:
    for row in literal("rounding.json")["int8"]:
        key = f"base_model.model.m.{row['factor']}.weight"
        values = np.array(row["values"], np.float32).reshape(len(row["values"]), -1)
        written = rounded({key: values}, "int8")
        assert written[key].tolist() == row["numbers"]
        assert bits_of(written[scales_key(key)]) == row["scales"]


def test_updates_and_errors_of_three_rounds_are_the_pinned_bytes() -> None:
    feedback = pytest.importorskip("edge_sdk.training.error_feedback", exc_type=ImportError)
    pinned = literal("rounding.json")
    received = adapter_of(pinned["received"])
    for precision, rounds in groupby(pinned["rounds_with_feedback"], key=lambda row: row["precision"]):
        adaptation = Adaptation(upload_precision=precision, error_feedback=True)
        errors: dict[str, NDArray[Any]] = {}
        for row in rounds:
            trained = adapter_from_bytes(bytes.fromhex(row["trained"]), SPEC)
            data, errors = feedback.contract_with_feedback(trained, adaptation, received, errors)
            assert data.hex() == row["update"]
            assert tensors_to_bytes(errors).hex() == row["errors"]


def test_parts_of_a_change_are_the_pinned_bytes() -> None:
    # Numbers move by quarters, so that many moves are equal, and which of them comes first counts.
    pinned = literal("parts.json")
    received = adapter_of(pinned["received"])
    for row in pinned["updates"]:
        trained = adapter_from_bytes(bytes.fromhex(row["trained"]), SPEC)
        assert contract(trained, Adaptation(**row["adaptation"]), received).hex() == row["update"]


def test_densities_leave_the_pinned_number_of_entries() -> None:
    for row in literal("parts.json")["kept_entries"]:
        assert kept_entries(row["density"], row["count"]) == row["kept"], row


def test_sparse_adapters_of_plans_are_written_and_read_as_pinned() -> None:
    pinned = literal("parts.json")
    for row in pinned["sparse_adapters"]:
        data = bytes.fromhex(row["file"])
        assert tensors_to_bytes(sparse_tensors(adapter_of(pinned["received"]), row["density"])) == data
        assert adapter_to_bytes(sent_from_bytes(data, SPEC).adapter).hex() == row["adapter"]


def test_self_pruning_leaves_the_pinned_ranks() -> None:
    # Received are tails of 5 * 5 in k and sqrt(2) * 0.5 in q; a last column (0, 4) of lora_B makes 4 * 5 of
    # the first, a last row (0, 1) of lora_A sqrt(2) * 1 of the second.
    pruning = pytest.importorskip("edge_sdk.training.pruning", exc_type=ImportError)
    pinned = literal("pruning.json")
    received = adapter_of(pinned["received"])
    k, q = received.factors["h.0.k"], received.factors["h.0.q"]
    for row in pinned["cases"]:
        lora_B = k.lora_B if row["lora_B_of_k"] is None else np.array(row["lora_B_of_k"])
        lora_A = q.lora_A if row["lora_A_of_q"] is None else np.array(row["lora_A_of_q"])
        trained = Adapter(
            SPEC, {"h.0.k": LoraFactors(k.lora_A, lora_B), "h.0.q": LoraFactors(lora_A, q.lora_B)}
        )
        options = {name: row[name] for name in ("pruning_decay", "min_rank", "prune_by", "untrained")}
        assert pruning.self_prune(received, trained, **options).ranks == row["ranks"], row["why"]
