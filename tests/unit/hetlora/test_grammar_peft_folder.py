"""What write_peft_folder writes, read back by PEFT itself on a model of three linear layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.errors import SpecMismatch
from hetlora.tensors import write_peft_folder

if TYPE_CHECKING:
    from torch import nn

# PEFT matches names as suffixes and as regular expressions: `q` ends `h.q`, and `h.q` also matches `hxq`.
SPEC = AdapterSpec(
    (ModuleSpec("h.q", 4, 3), ModuleSpec("hxq", 3, 4), ModuleSpec("q", 3, 3)), scaling=1.5, max_rank=3
)


def adapter_of_ranks(*ranks: int) -> Adapter:
    rng = np.random.default_rng(7)
    return Adapter(
        SPEC,
        {
            module.name: LoraFactors(
                rng.standard_normal((rank, module.in_features)),
                rng.standard_normal((module.out_features, rank)),
            )
            for module, rank in zip(SPEC.modules, ranks, strict=True)
        },
    )


def loaded_by_peft(folder: Path, modules: dict[str, ModuleSpec]) -> nn.Module:
    """The adapter of a folder on a new model of linear layers."""
    torch = pytest.importorskip("torch", reason="PEFT needs torch: pip install hetlora[export]")
    peft = pytest.importorskip("peft", reason="pip install hetlora[export]")
    model = torch.nn.Module()
    model.config = {"model_type": "tiny"}
    for name, module in modules.items():
        owner = model
        *parents, leaf = name.split(".")
        for part in parents:
            if not hasattr(owner, part):
                owner.add_module(part, torch.nn.Module())
            owner = getattr(owner, part)
        owner.add_module(leaf, torch.nn.Linear(module.in_features, module.out_features))
    loaded: nn.Module = peft.PeftModel.from_pretrained(model, str(folder)).base_model.model
    return loaded


@pytest.mark.parametrize(
    "ranks",
    [(2, 2, 2), (3, 1, 2), (1, 3, 2), (2, 1, 3), (2, 2, 0), (0, 2, 2), (2, 0, 1)],
    ids=str,
)
def test_peft_applies_the_scaled_product_in_every_module(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    adapter = adapter_of_ranks(*ranks)
    write_peft_folder(adapter, tmp_path, base_model="tiny")

    loaded = loaded_by_peft(tmp_path, {module.name: module for module in SPEC.modules})

    for module, factors in adapter:
        layer = loaded.get_submodule(module.name)
        assert hasattr(layer, "lora_A") == (factors.rank > 0)
        if factors.rank > 0:
            delta = layer.get_delta_weight("default").detach().numpy()
            np.testing.assert_allclose(delta, 1.5 * factors.lora_B @ factors.lora_A, rtol=1e-5, atol=1e-6)


def test_peft_applies_the_sum_of_an_adapter_and_a_frozen_one_of_any_rank(tmp_path: Path) -> None:
    adapter = adapter_of_ranks(2, 0, 1)
    rng = np.random.default_rng(8)
    frozen = {
        module.name: LoraFactors(
            rng.standard_normal((rank, module.in_features)), rng.standard_normal((module.out_features, rank))
        )
        for module, rank in zip(SPEC.modules, (5, 0, 3), strict=True)
    }
    write_peft_folder(adapter, tmp_path, base_model="tiny", frozen=frozen)

    loaded = loaded_by_peft(tmp_path, {module.name: module for module in SPEC.modules})

    for module, own in adapter:
        layer, beside = loaded.get_submodule(module.name), frozen[module.name]
        assert hasattr(layer, "lora_A") == (own.rank + beside.rank > 0)
        if own.rank + beside.rank > 0:
            delta = layer.get_delta_weight("default").detach().numpy()
            expected = 1.5 * (own.lora_B @ own.lora_A + beside.lora_B @ beside.lora_A)
            np.testing.assert_allclose(delta, expected, rtol=1e-5, atol=1e-5)


def test_layers_that_end_like_a_trained_one_are_left_alone(tmp_path: Path) -> None:
    # From 20 targets on, PEFT looks for shorter endings that tell them from all else.
    names = sorted(f"h.{block}.{leaf}" for block in range(12) for leaf in ("q", "v"))
    spec = AdapterSpec(tuple(ModuleSpec(name, 3, 3) for name in names), scaling=2.0, max_rank=2)
    write_peft_folder(initial_adapter(spec, 2, np.random.default_rng(0)), tmp_path, base_model="tiny")
    others = [f"x.{names[0]}", f"h.x.{names[3]}", "h.0.w", "hx0xq", "q"]

    loaded = loaded_by_peft(tmp_path, {name: ModuleSpec(name, 3, 3) for name in [*names, *others]})

    adapted = {name for name, layer in loaded.named_modules() if hasattr(layer, "lora_A")}
    assert adapted == set(names)


def test_adapter_without_a_trained_module_has_no_peft_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecMismatch, match="at least one trained module"):
        write_peft_folder(adapter_of_ranks(0, 0, 0), tmp_path / "peft", base_model="tiny")
    assert not (tmp_path / "peft").exists()


def test_lora_alpha_keeps_scaling_at_every_rank(tmp_path: Path) -> None:
    write_peft_folder(adapter_of_ranks(3, 1, 3), tmp_path, base_model="tiny")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 4.5)  # 1.5 * 3
    assert config["rank_pattern"] == {"^hxq": 1}
    assert config["alpha_pattern"] == {"^hxq": 1.5}  # 1.5 * 1
