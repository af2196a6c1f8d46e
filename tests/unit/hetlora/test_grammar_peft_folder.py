"""What write_peft_folder writes, read back by PEFT itself on a model of three linear layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import SpecMismatch
from hetlora.tensors import write_peft_folder

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


@pytest.mark.parametrize(
    "ranks",
    [(2, 2, 2), (3, 1, 2), (1, 3, 2), (2, 1, 3), (2, 2, 0), (0, 2, 2), (2, 0, 1)],
    ids=str,
)
def test_peft_applies_the_scaled_product_in_every_module(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="PEFT needs torch: pip install hetlora[export]")
    peft = pytest.importorskip("peft", reason="pip install hetlora[export]")
    adapter = adapter_of_ranks(*ranks)
    write_peft_folder(adapter, tmp_path, base_model="tiny")
    model = torch.nn.Module()
    model.h = torch.nn.Module()
    for module in SPEC.modules:
        parent, _, leaf = module.name.rpartition(".")
        owner = model.get_submodule(parent)
        owner.add_module(leaf, torch.nn.Linear(module.in_features, module.out_features))
    model.config = {"model_type": "tiny"}

    loaded = peft.PeftModel.from_pretrained(model, str(tmp_path)).base_model.model

    for module, factors in adapter:
        layer = loaded.get_submodule(module.name)
        assert hasattr(layer, "lora_A") == (factors.rank > 0)
        if factors.rank > 0:
            delta = layer.get_delta_weight("default").detach().numpy()
            np.testing.assert_allclose(delta, 1.5 * factors.lora_B @ factors.lora_A, rtol=1e-5, atol=1e-6)


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
