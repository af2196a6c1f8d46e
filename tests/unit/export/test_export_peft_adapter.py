"""PEFT folders that PEFT itself has saved, read back and fitted to a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from export.peft.peft_adapter import PICKLE_NAME, WEIGHTS_NAME, read_peft_folder, to_bundle
from export.peft.peft_config import CONFIG_NAME
from export.quiet import quiet_libraries
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.errors import (
    AdapterError,
    BodyTooLarge,
    HetloraError,
    MalformedTensors,
    NonFiniteValues,
    RankOutOfRange,
    SpecMismatch,
)

FEATURES = {"h.0.q": (6, 4), "h.0.v": (6, 6), "h.1.q": (6, 4), "h.1.v": (6, 6), "wide.q": (8, 5)}


def tiny() -> nn.Module:
    """Linear layers at the names of FEATURES, and a Conv1D, whose matrix lies transposed, at `c`."""
    model = nn.Module()
    model.config = {"model_type": "tiny"}
    for name, (inputs, outputs) in FEATURES.items():
        owner = model
        *parents, leaf = name.split(".")
        for part in parents:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(leaf, nn.Linear(inputs, outputs))
    model.add_module("c", Conv1D(4, 6))
    return model


def saved(folder: Path, **choices: Any) -> nn.Module:
    """Save a PEFT adapter of random factors and answer the adapted model."""
    choices = {"r": 2, "lora_alpha": 3, "target_modules": ["q", "v", "c"]} | choices
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(0)
        model = peft.get_peft_model(tiny(), peft.LoraConfig(**choices))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_()
        model.save_pretrained(str(folder))
    adapted: nn.Module = model.base_model.model
    return adapted


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / CONFIG_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_NAME)


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param({}, id="plain"),
        pytest.param({"rank_pattern": {"h.0.q": 3, "v": 1}}, id="ranks"),
        pytest.param({"alpha_pattern": {r"h\.\d\.v": 7, "^wide.q": 0.5}}, id="alphas"),
        pytest.param({"rank_pattern": {"q": 3}, "alpha_pattern": {"0.q": 5}}, id="both"),
        pytest.param({"rank_pattern": {"q": 3}, "use_rslora": True}, id="rank-stabilised"),
        pytest.param({"init_lora_weights": "gaussian", "lora_dropout": 0.1}, id="harmless"),
    ],
)
def test_every_module_has_the_delta_that_peft_gives_it(tmp_path: Path, choices: dict[str, Any]) -> None:
    adapted = saved(tmp_path, **choices)

    read = read_peft_folder(tmp_path)

    assert tuple(read.adapter.factors) == ("c", *FEATURES)
    assert read.adapter.spec.scaling == 1.5  # 3 / 2, whatever the patterns say
    for name, factors in read.adapter.factors.items():
        layer = adapted.get_submodule(name)
        assert read.adapter.ranks[name] == layer.r["default"]
        delta = layer.get_delta_weight("default").detach().numpy()
        wanted = delta.T if name == "c" else delta
        np.testing.assert_allclose(1.5 * factors.lora_B @ factors.lora_A, wanted, rtol=1e-5, atol=1e-6)


def test_only_a_module_of_another_scaling_is_changed(tmp_path: Path) -> None:
    saved(tmp_path, r=2, lora_alpha=4, rank_pattern={"h.0.q": 1}, alpha_pattern={"h.0.q": 1})

    adapter = read_peft_folder(tmp_path).adapter

    tensors = load_file(tmp_path / WEIGHTS_NAME)
    halved, kept = (tensors[f"base_model.model.h.{layer}.q.lora_B.weight"].numpy() for layer in (0, 1))
    np.testing.assert_array_equal(adapter.factors["h.0.q"].lora_B, 0.5 * halved)  # (1 / 1) / (4 / 2)
    np.testing.assert_array_equal(adapter.factors["h.1.q"].lora_B, kept)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_factors_of_another_float_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    saved(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.update({k: t.to(dtype) for k, t in tensors.items()}))

    lora_A = read_peft_folder(tmp_path).adapter.factors["h.0.q"].lora_A

    stored = load_file(tmp_path / WEIGHTS_NAME)["base_model.model.h.0.q.lora_A.weight"]
    np.testing.assert_array_equal(lora_A, stored.float().numpy())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"peft_type": "IA3"}, "got IA3; expected LORA", id="another type"),
        pytest.param({"use_dora": True}, "use_dora=true", id="DoRA"),
        pytest.param({"bias": "lora_only"}, 'bias="lora_only"', id="bias"),
        pytest.param({"modules_to_save": ["classifier"]}, r'modules_to_save=\["classifier"\]', id="head"),
        pytest.param({"trainable_token_indices": [1]}, "trainable_token_indices", id="tokens"),
        pytest.param({"a_later_variant": {"k": 1}}, "a_later_variant", id="not known yet"),
        pytest.param({"init_lora_weights": "pissa"}, 'init_lora_weights="pissa"', id="PiSSA"),
        pytest.param({"r": 0}, "r: ", id="rank 0"),
        pytest.param({"r": "2"}, "r: ", id="rank as text"),
        pytest.param({"rank_pattern": {"q": 0}}, "rank_pattern.q: ", id="rank 0 in a pattern"),
        pytest.param({"lora_alpha": float("nan")}, "lora_alpha: ", id="alpha not finite"),
        pytest.param({"lora_alpha": 5e-324}, "lora_alpha: ", id="alpha out of range"),
        pytest.param({"rank_pattern": {"q(": 2}}, "no regular expression", id="pattern"),
        pytest.param({"rank_pattern": {"(([a-z_.0-9])+)+X": 4}}, "too long to match", id="endless pattern"),
        pytest.param({"alpha_pattern": {".*" * 20: 4.0}}, "too long to match", id="many wildcards"),
    ],
)
def test_configuration_that_is_not_plain_lora_is_refused(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    saved(tmp_path)
    change_config(tmp_path, **fields)
    with pytest.raises(AdapterError, match=words) as refused:
        read_peft_folder(tmp_path)
    assert refused.value.code == "adapter_invalid"


@pytest.mark.parametrize("text", ["", "[]", "{", '"LORA"', "\udcff", "[" * 100_000])
def test_configuration_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG_NAME).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(AdapterError, match=CONFIG_NAME):
        read_peft_folder(tmp_path)


def test_huge_configuration_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / CONFIG_NAME).open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(BodyTooLarge, match=CONFIG_NAME):
        read_peft_folder(tmp_path)


def test_folder_that_peft_did_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="expected a folder that PEFT saved"):
        read_peft_folder(tmp_path / "nowhere")


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / WEIGHTS_NAME).rename(tmp_path / PICKLE_NAME)
    with pytest.raises(AdapterError, match=r"adapter_model\.bin, which runs code of its author"):
        read_peft_folder(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_torn_weights_are_refused(tmp_path: Path, keep: int) -> None:
    saved(tmp_path)
    path = tmp_path / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MalformedTensors, match="no whole safetensors file"):
        read_peft_folder(tmp_path)


def test_huge_weights_are_refused_unread(tmp_path: Path) -> None:
    saved(tmp_path)
    with (tmp_path / WEIGHTS_NAME).open("r+b") as file:
        file.truncate(2**31)
    with pytest.raises(BodyTooLarge, match=WEIGHTS_NAME):
        read_peft_folder(tmp_path)


KEY = "base_model.model.h.0.q.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        pytest.param(
            lambda t: t.update({"base_model.model.e.lora_embedding_A": torch.zeros(2, 9)}),
            SpecMismatch,
            "1 other tensors, such as base_model.model.e.lora_embedding_A",
            id="embedding",
        ),
        pytest.param(lambda t: t.pop(KEY), SpecMismatch, r"only one factor: \['h.0.q'\]", id="half a pair"),
        pytest.param(lambda t: t.clear(), SpecMismatch, "0 modules", id="nothing"),
        pytest.param(
            lambda t: t.update({KEY: torch.zeros(3, 6)}),
            SpecMismatch,
            r"lora_A \(2, in_features\)",
            id="rank",
        ),
        pytest.param(
            lambda t: t.update({KEY: torch.zeros(2, 6, 3, 3)}), SpecMismatch, "factors of h.0.q", id="image"
        ),
        pytest.param(
            lambda t: t.update({KEY: torch.full((2, 6), torch.nan)}), NonFiniteValues, "h.0.q", id="NaN"
        ),
        pytest.param(
            lambda t: t.update({KEY: torch.full((2, 6), 1e300, dtype=torch.float64)}),
            NonFiniteValues,
            "h.0.q",
            id="beyond float32",
        ),
        pytest.param(
            lambda t: t.update({KEY: torch.zeros(2, 6, dtype=torch.int8)}), MalformedTensors, "I8", id="int8"
        ),
    ],
)
def test_tensors_that_are_no_factors_are_refused(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], error: type[HetloraError], words: str
) -> None:
    saved(tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(error, match=words):
        read_peft_folder(tmp_path)


def bundle_spec(*names: str, scaling: float = 1.5, max_rank: int = 4) -> AdapterSpec:
    modules = tuple(ModuleSpec(name, *FEATURES[name]) for name in sorted(names))
    return AdapterSpec(modules, scaling, max_rank)


def test_modules_without_factors_get_rank_0_in_the_bundle(tmp_path: Path) -> None:
    saved(tmp_path, target_modules=["v"])
    adapter = to_bundle(read_peft_folder(tmp_path).adapter, bundle_spec("h.0.q", "h.0.v", "h.1.v"))
    assert adapter.ranks == {"h.0.q": 0, "h.0.v": 2, "h.1.v": 2}


def test_scaling_of_the_bundle_is_made_up_for(tmp_path: Path) -> None:
    saved(tmp_path, target_modules=["wide.q"])
    read = read_peft_folder(tmp_path)
    fitted = to_bundle(read.adapter, bundle_spec("wide.q", scaling=6.0)).factors["wide.q"]
    own = read.adapter.factors["wide.q"]
    np.testing.assert_array_equal(fitted.lora_B, own.lora_B * np.float32(0.25))  # 1.5 / 6
    np.testing.assert_array_equal(fitted.lora_A, own.lora_A)


def test_factors_for_what_the_bundle_does_not_train_are_refused_by_name(tmp_path: Path) -> None:
    saved(tmp_path, target_modules=["q"])
    with pytest.raises(SpecMismatch, match=r"1 of them: wide\.q"):
        to_bundle(read_peft_folder(tmp_path).adapter, bundle_spec("h.0.q", "h.1.q"))


def test_rank_beyond_the_bundle_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, target_modules=["h.0.q"], rank_pattern={"q": 3})
    with pytest.raises(RankOutOfRange, match=r"rank of h\.0\.q"):
        to_bundle(read_peft_folder(tmp_path).adapter, bundle_spec("h.0.q", max_rank=2))


def test_module_of_other_widths_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, target_modules=["h.0.q"])
    spec = AdapterSpec((ModuleSpec("h.0.q", 6, 5),), 1.5, 4)
    with pytest.raises(SpecMismatch, match=r"h\.0\.q"):
        to_bundle(read_peft_folder(tmp_path).adapter, spec)
