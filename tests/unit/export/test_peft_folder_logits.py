"""Models under a PEFT folder that we wrote answer as models whose matrices have scaling B A added."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from tiny_families import TINY_FAMILIES, VOCABULARY, write_tiny_family
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from export.peft.peft_adapter import read_peft_folder, to_bundle
from export.quiet import quiet_libraries
from export.source.model_folder import load_model
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.tensors import write_peft_folder

SCALING = 1.5
RANKS = (4, 0, 1)  # go round over the modules
TASK = "text-generation"
TOLERANCE = 1e-5  # float32, with B A added before or after the product


@dataclass(frozen=True, slots=True)
class Case:
    folder: Path
    adapter: Adapter


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = write_tiny_family(tmp_path_factory.mktemp("models") / request.param, request.param)
    return Case(folder, adapter_for(model_of(folder), *TINY_FAMILIES[request.param].targets))


def model_of(folder: Path) -> PreTrainedModel:
    with quiet_libraries():
        return load_model(folder, TASK)


def adapter_for(model: nn.Module, *targets: str) -> Adapter:
    rng = np.random.default_rng(0)
    modules, factors = [], {}
    for name, layer in sorted(model.named_modules()):
        if name.endswith(targets) and isinstance(layer, nn.Linear | Conv1D):
            rows, columns = layer.weight.shape
            inputs, outputs = (rows, columns) if isinstance(layer, Conv1D) else (columns, rows)
            rank = RANKS[len(modules) % len(RANKS)]
            modules.append(ModuleSpec(name, inputs, outputs))
            factors[name] = LoraFactors(
                rng.standard_normal((rank, inputs)), 0.1 * rng.standard_normal((outputs, rank))
            )
    return Adapter(AdapterSpec(tuple(modules), SCALING, max(RANKS)), factors)


def logits_of(model: nn.Module) -> Tensor:
    input_ids = torch.arange(12).reshape(2, 6) % len(VOCABULARY)
    with torch.no_grad():
        logits: Tensor = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits
    return logits


def logits_with_added_product(case: Case) -> Tensor:
    model = model_of(case.folder)
    for module, factors in case.adapter:
        layer = model.get_submodule(module.name)
        added = torch.from_numpy(SCALING * factors.lora_B @ factors.lora_A)
        with torch.no_grad():
            layer.weight += added.T if isinstance(layer, Conv1D) else added
    return logits_of(model)


def test_peft_answers_as_the_matrices_with_the_product_added(case: Case, tmp_path: Path) -> None:
    write_peft_folder(case.adapter, tmp_path, base_model="tiny", task=TASK)

    # Every warning is an error in these tests: PEFT finds nothing to mend, Conv1D included.
    model = PeftModel.from_pretrained(model_of(case.folder), str(tmp_path)).eval()

    wanted = logits_with_added_product(case)
    assert (logits_of(model) - wanted).abs().max() <= TOLERANCE
    assert (logits_of(model_of(case.folder)) - wanted).abs().max() > 100 * TOLERANCE
    adapted = {name for name, layer in model.base_model.model.named_modules() if hasattr(layer, "lora_A")}
    assert adapted == {name for name, rank in case.adapter.ranks.items() if rank}


def test_folder_alone_is_enough_for_a_model_that_generates(case: Case, tmp_path: Path) -> None:
    write_peft_folder(case.adapter, tmp_path, base_model=str(case.folder), task=TASK)
    with quiet_libraries():
        model = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path)).eval()
    assert (logits_of(model) - logits_with_added_product(case)).abs().max() <= TOLERANCE


def test_folder_read_again_is_the_adapter_that_was_written(case: Case, tmp_path: Path) -> None:
    write_peft_folder(case.adapter, tmp_path, base_model="tiny", task=TASK)

    again = to_bundle(read_peft_folder(tmp_path).adapter, case.adapter.spec)

    for module, factors in case.adapter:
        np.testing.assert_array_equal(again.factors[module.name].lora_A, factors.lora_A)
        np.testing.assert_array_equal(again.factors[module.name].lora_B, factors.lora_B)
