"""Reads a folder that PEFT saved, and fits its LoRA factors to a bundle.

PEFT scales B A by a number of each module, a bundle by one constant: what a module has beside that constant
goes into its lora_B.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open

from export.peft.peft_config import read_peft_config
from hetlora.adapter import (
    MAX_ADAPTER_BYTES,
    Adapter,
    AdapterSpec,
    LoraFactors,
    ModuleSpec,
    Tensor,
    initial_adapter,
)
from hetlora.errors import AdapterError, BodyTooLarge, MalformedTensors, SpecMismatch
from hetlora.tensors import KEY_PREFIX

WEIGHTS_NAME: Final = "adapter_model.safetensors"
PICKLE_NAME: Final = "adapter_model.bin"
# Half as much again as the largest adapter: room for keys and header, and none to exhaust memory.
MAX_WEIGHTS_BYTES: Final = MAX_ADAPTER_BYTES * 3 // 2

_FACTOR: Final = re.compile(rf"{re.escape(KEY_PREFIX)}(.+)\.lora_([AB])\.weight")
_FLOATS: Final = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """A PEFT folder in our terms, and the base model as it names it.

    The adapter's specification has the modules that PEFT adapted, by their names without `base_model.model.`,
    the largest of their ranks, and the scaling lora_alpha / r, patterns left out.
    """

    adapter: Adapter
    base_model: str | None


def read_peft_folder(folder: Path) -> PeftAdapter:
    """Read adapter_config.json and adapter_model.safetensors; nothing in them is trusted.

    Raises:
        AdapterError: see `read_peft_config`; or weights that are missing or pickled.
        MalformedTensors: torn weights, or a tensor that does not hold floating-point numbers.
        BodyTooLarge: more bytes than an adapter may have.
        SpecMismatch: tensors that are no factors of linear layers, or whose ranks the configuration denies.
        RankOutOfRange, NonFiniteValues: see `AdapterSpec` and `Adapter`.
    """
    config = read_peft_config(folder)
    modules, factors = [], {}
    for name, (lora_A, lora_B) in sorted(_paired(_read_tensors(folder)).items()):
        _check_rank(name, lora_A, lora_B, config.rank_of(name))
        modules.append(ModuleSpec(name, lora_A.shape[1], lora_B.shape[0]))
        factors[name] = LoraFactors(lora_A, _times(lora_B, config.scaling_of(name) / config.scaling))
    max_rank = max(pair.rank for pair in factors.values())
    spec = AdapterSpec(tuple(modules), config.scaling, max_rank)
    return PeftAdapter(Adapter(spec, factors), config.base_model_name_or_path)


def to_bundle(adapter: Adapter, spec: AdapterSpec) -> Adapter:
    """The same scaled B A under a bundle's specification; modules that the adapter lacks get rank 0.

    Raises:
        SpecMismatch: factors for modules that the bundle does not train, or of other widths.
        RankOutOfRange: a module's rank passes the bundle's `max_rank`.
        NonFiniteValues: the bundle's scaling is so small beside the adapter's that lora_B overflows.
    """
    unknown = sorted(name for name, rank in adapter.ranks.items() if rank and name not in spec.by_name)
    if unknown:
        raise SpecMismatch(
            "the adapter has factors for modules that the bundle does not train",
            got=f"{len(unknown)} of them: {', '.join(unknown[:5])}",
            expected=f"some of its {len(spec.modules)} modules, such as {spec.modules[0].name}",
        )
    ratio = adapter.spec.scaling / spec.scaling
    factors = dict(initial_adapter(spec, 0, np.random.default_rng(0)).factors)
    for module, own in adapter:
        if own.rank:
            factors[module.name] = LoraFactors(own.lora_A, _times(own.lora_B, ratio))
    return Adapter(spec, factors)


def _times(lora_B: Tensor, ratio: float) -> Tensor:
    with np.errstate(over="ignore"):  # Adapter refuses infinity, and knows the module's name
        return lora_B if ratio == 1 else (lora_B.astype(np.float64) * ratio).astype(np.float32)


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        pickled = (folder / PICKLE_NAME).is_file()
        raise AdapterError(
            "the PEFT folder has no weights that are safe to load",
            got=f"{PICKLE_NAME}, which runs code of its author when loaded" if pickled else f"no {path}",
            expected=f"{WEIGHTS_NAME}, as PEFT saves by default",
        )
    size = path.stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise BodyTooLarge(
            f"{WEIGHTS_NAME} is too large", got=f"{size} bytes", expected=f"up to {MAX_WEIGHTS_BYTES}"
        )
    try:
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            return {key: _read_tensor(file, key) for key in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise MalformedTensors(
            f"{WEIGHTS_NAME} is no whole safetensors file", got=error, expected="weights that can be read"
        ) from error


def _read_tensor(file: Any, key: str) -> Tensor:
    dtype = file.get_slice(key).get_dtype()
    if dtype not in _FLOATS:
        raise MalformedTensors(f"dtype of {key}", got=dtype, expected="floating point")
    tensor: Tensor = file.get_tensor(key).float().numpy()
    return tensor


def _paired(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """lora_A and lora_B by module name."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    other = []
    for key, tensor in tensors.items():
        match = _FACTOR.fullmatch(key)
        if match is None:
            other.append(key)
        else:
            found[match[1]][match[2]] = tensor
    if other:
        raise SpecMismatch(
            "the PEFT adapter holds more than lora_A and lora_B of linear layers",
            got=f"{len(other)} other tensors, such as {other[0]}",
            expected=f"{KEY_PREFIX}MODULE.lora_A.weight and lora_B.weight",
        )
    alone = sorted(name for name, pair in found.items() if len(pair) < 2)
    if alone or not found:
        raise SpecMismatch(
            "the PEFT adapter lacks factors",
            got=f"{len(found)} modules, of which only one factor: {alone[:3]}",
            expected="lora_A and lora_B of at least one module",
        )
    return {name: (pair["A"], pair["B"]) for name, pair in found.items()}


def _check_rank(module: str, lora_A: Tensor, lora_B: Tensor, rank: int) -> None:
    if lora_A.ndim != 2 or lora_B.ndim != 2 or (lora_A.shape[0], lora_B.shape[1]) != (rank, rank):
        raise SpecMismatch(
            f"factors of {module} are not what the PEFT configuration says",
            got=f"lora_A {lora_A.shape}, lora_B {lora_B.shape}",
            expected=f"lora_A ({rank}, in_features), lora_B (out_features, {rank})",
        )
