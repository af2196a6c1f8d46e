"""Adapters to and from bytes: safetensors under PEFT's key names, and the PEFT folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, Tensor, shared_rank
from hetlora.errors import MalformedTensors, SpecMismatch
from hetlora.lazy_adapter import LazyAdapter
from hetlora.manifest import Task
from hetlora.stored_tensors import (
    FileTensors,
    Source,
    Tensors,
    header_entries,
    stored_tensors,
    tensors_to_bytes,
)

KEY_PREFIX: Final = "base_model.model."
# For classifiers too: the frozen prototypes are no head of PEFT's, and an image model brings its own.
PEFT_TASK_TYPES: Final[dict[Task, str]] = {
    "text-classification": "FEATURE_EXTRACTION",
    "image-classification": "FEATURE_EXTRACTION",
    "text-generation": "CAUSAL_LM",
    "text2text-generation": "SEQ_2_SEQ_LM",
}
# What GPT-2 and its kin call their layers of class Conv1D, whose matrices lie transposed. A guess will do:
# PEFT sees by itself how a matrix lies, and only warns where `fan_in_fan_out` says otherwise.
CONV1D_NAMES: Final = ("c_attn", "c_fc", "c_proj", "q_attn")
# A module's two header entries take some 280 bytes beside their keys; the rest is room for other writers.
HEADER_BYTES_PER_MODULE: Final = 1024


def factor_keys(module_name: str) -> tuple[str, str]:
    """PEFT's state-dict keys of a module's lora_A and lora_B."""
    stem = f"{KEY_PREFIX}{module_name}"
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def to_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """The factors of an adapter by PEFT key, in the order of its modules."""
    return factor_tensors(adapter.factors)


def factor_tensors(factors: Mapping[str, LoraFactors]) -> dict[str, Tensor]:
    """Factors of any rank by module name, under PEFT's keys."""
    return {
        key: tensor
        for name, own in factors.items()
        for key, tensor in zip(factor_keys(name), (own.lora_A, own.lora_B), strict=True)
    }


def from_tensors(spec: AdapterSpec, tensors: Tensors) -> Adapter:
    """The adapter whose factors stand under these PEFT keys.

    Raises:
        SpecMismatch: missing or unexpected tensors, or shapes that differ from `spec`.
        RankOutOfRange, NonFiniteValues: see `Adapter`.
    """
    return lazily_from_tensors(spec, tensors).whole()


def lazily_from_tensors(spec: AdapterSpec, tensors: Tensors) -> LazyAdapter:
    """The same, a module at a time.

    Raises:
        SpecMismatch: missing or unexpected tensors, or factors of one module that share no rank.
    """
    check_keys(tensors, [key for name in spec.by_name for key in factor_keys(name)])
    ranks = {name: shared_rank(*(tensors[key].shape for key in factor_keys(name))) for name in spec.by_name}
    return LazyAdapter(
        spec, ranks, lambda name: LoraFactors(*(np.asarray(tensors[key]) for key in factor_keys(name)))
    )


def check_keys(tensors: Mapping[str, object], wanted: Iterable[str]) -> None:
    """Raise unless the tensors are those, no fewer and no others.

    Raises:
        SpecMismatch: missing or unexpected tensors.
    """
    expected = set(wanted)
    if tensors.keys() != expected:
        missing, unknown = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
        raise SpecMismatch(
            "tensors differ from the adapter specification",
            got=f"{len(missing)} missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}",
            expected=f"{len(expected)} tensors, those of the specification's modules",
        )


def adapter_to_bytes(adapter: Adapter) -> bytes:
    """Write an adapter as safetensors: float32, PEFT keys, the same bytes for the same adapter."""
    return tensors_to_bytes(to_tensors(adapter))


def adapter_from_bytes(data: bytes, spec: AdapterSpec) -> Adapter:
    """Read and check an adapter from safetensors bytes; nothing in them is trusted.

    Raises:
        MalformedTensors: see `read_adapter`.
        SpecMismatch, RankOutOfRange, NonFiniteValues: see `from_tensors`.
    """
    return read_adapter(data, spec).whole()


def read_adapter(source: Source, spec: AdapterSpec) -> LazyAdapter:
    """The adapter of a safetensors file; nothing in it is trusted.

    Raises:
        MalformedTensors: not a safetensors file, one whose header is longer than any that could be meant, or
            a tensor that is not float32 or float16.
        SpecMismatch: see `lazily_from_tensors`.
    """
    check_header(source, max_header_bytes(spec), "an adapter")
    return lazily_from_tensors(spec, read_tensors(source))


def check_header(source: Source, most: int, what: str) -> None:
    """Raise MalformedTensors where a file says that its header is longer than `most` bytes."""
    header_bytes = int.from_bytes(_first(source, 8), "little")
    if header_bytes > most:
        raise MalformedTensors(f"header of {what}", got=f"{header_bytes} bytes", expected=f"up to {most}")


def _first(source: Source, count: int) -> bytes:
    if isinstance(source, bytes):
        return source[:count]
    source.seek(0)
    return source.read(count)


def read_tensors(source: Source, others: Mapping[str, str] = MappingProxyType({})) -> FileTensors:
    """The tensors of a file by key, in the order of its header: float32 or float16, finite or not.

    `others` gives the dtype of keys that end otherwise, such as indices, by their last part.

    Raises:
        MalformedTensors: not a safetensors file, a key that stands twice, or a tensor of another dtype.
    """
    try:
        tensors: FileTensors = _loaded(source) if isinstance(source, bytes) else stored_tensors(source)
    # numpy refuses shapes and dtypes that safetensors' own header check lets through.
    except (SafetensorError, KeyError, ValueError) as error:
        raise MalformedTensors(
            "adapter bytes are not a safetensors file", got=error, expected="float32 or float16 safetensors"
        ) from error
    for key, tensor in tensors.items():
        own = others.get(key.rpartition(".")[2])
        if tensor.dtype not in ((np.float32, np.float16) if own is None else (np.dtype(own),)):
            raise MalformedTensors(f"dtype of {key}", got=tensor.dtype, expected=own or "float32 or float16")
    return tensors


def _loaded(data: bytes) -> dict[str, NDArray[Any]]:
    tensors = load(data)
    entries = header_entries(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {key: tensors[key] for key in entries}


def max_adapter_bytes(spec: AdapterSpec) -> int:
    """The most bytes that a well-formed adapter of this specification can take."""
    return max_header_bytes(spec) + 4 * spec.parameters_per_rank * spec.max_rank


def max_header_bytes(spec: AdapterSpec) -> int:
    """The most bytes that its header can take; the format would let blanks fill any room."""
    keys = [json.dumps(key) for module in spec.modules for key in factor_keys(module.name)]
    return sum(map(len, keys)) + HEADER_BYTES_PER_MODULE * len(spec.modules) + 256


def write_peft_folder(
    adapter: Adapter,
    folder: Path,
    *,
    base_model: str,
    task: Task = "text-classification",
    frozen: Mapping[str, LoraFactors] = MappingProxyType({}),
) -> None:
    """Write the folder that `peft.PeftModel.from_pretrained` loads.

    `frozen` factors by module, of any rank, are added as further ranks: PEFT's adapter is the sum of both.
    Modules of rank 0 are left out.
    """
    factors = {module.name: _beside(own, frozen.get(module.name)) for module, own in adapter}
    trained = {name: own.rank for name, own in factors.items() if own.rank > 0}
    if not trained:
        raise SpecMismatch("an adapter of rank 0 has no PEFT folder", expected="at least one trained module")
    config = {
        "peft_type": "LORA",
        "task_type": PEFT_TASK_TYPES[task],
        "base_model_name_or_path": base_model,
        **lora_settings(trained, adapter.spec.scaling),
        "inference_mode": True,
    }
    tensors = factor_tensors({name: factors[name] for name in trained})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(tensors_to_bytes(tensors))
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def lora_settings(ranks: Mapping[str, int], scaling: float) -> dict[str, Any]:
    """What `peft.LoraConfig` is to be told of modules by name, each of a rank above 0.

    PEFT scales B A by lora_alpha / r, so lora_alpha is `scaling * r`; modules whose rank differs from the
    largest one get an entry in `rank_pattern` and `alpha_pattern`. PEFT reads the names there as regular
    expressions, and those of the targets as where a name ends: hence the patterns of whole names, and that
    everything but them is excluded.
    """
    most = max(ranks.values())
    other = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != most}
    return {
        "r": most,
        "lora_alpha": scaling * most,
        "target_modules": list(ranks),
        "exclude_modules": f"(?!(?:{'|'.join(map(re.escape, ranks))})$).*",
        "rank_pattern": other,
        "alpha_pattern": {name: scaling * rank for name, rank in other.items()},
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": all(name.rpartition(".")[2] in CONV1D_NAMES for name in ranks),
        "use_rslora": False,
    }


def _beside(own: LoraFactors, other: LoraFactors | None) -> LoraFactors:
    """Both as one: B A is the sum of their products."""
    if other is None:
        return own
    lora_A = np.concatenate([own.lora_A, other.lora_A])
    return LoraFactors(lora_A, np.concatenate([own.lora_B, other.lora_B], axis=1))
