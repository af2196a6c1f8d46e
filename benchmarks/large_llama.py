"""A Llama of a billion random parameters, written tensor by tensor in shards, as large models come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.llama import LlamaSize, llama_config, write_tokenizer
from export.quiet import quiet_libraries
from export.source.tracing import weightless_model

# meta-llama/Llama-3.2-1B, config.json: 1,236 million parameters, of which the embedding has 263.
LLAMA_1B: Final = LlamaSize(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128256,
)

_SHARD_BYTES: Final = 10**9
_PIECE_NUMBERS: Final = 2**22
# Of a bfloat16: sign and fraction are random, the exponent is that of 1/64, so that all are finite and small.
_RANDOM_BITS: Final = 0x807F
_EXPONENT: Final = 0x3C80


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return 2 * prod(self.shape)


def write_large_llama(folder: Path, size: LlamaSize, *, seed: int, shard_bytes: int = _SHARD_BYTES) -> Path:
    """Write config.json, a tokenizer and bfloat16 weights in shards; return the folder."""
    with quiet_libraries():
        config = llama_config(size)
        config.save_pretrained(folder)
        write_tokenizer(folder)
        network = weightless_model(config, "text-generation")
    tensors = [_Tensor(name, tuple(parameter.shape)) for name, parameter in network.named_parameters()]
    shards = _shards(tensors, shard_bytes)
    rng = np.random.default_rng(seed)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, shard, rng)
        places |= dict.fromkeys((tensor.name for tensor in shard), name)
    index = {"metadata": {"total_size": sum(t.size_bytes for t in tensors)}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _shards(tensors: Sequence[_Tensor], shard_bytes: int) -> list[list[_Tensor]]:
    """The tensors in their order, in groups of about `shard_bytes`."""
    shards: list[list[_Tensor]] = [[]]
    for tensor in tensors:
        if sum(other.size_bytes for other in shards[-1]) >= shard_bytes:
            shards.append([])
        shards[-1].append(tensor)
    return shards


def _write_shard(path: Path, tensors: Sequence[_Tensor], rng: np.random.Generator) -> None:
    header, offset = {}, 0
    for tensor in tensors:
        ends = [offset, offset + tensor.size_bytes]
        header[tensor.name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": ends}
        offset = ends[1]
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in _random_numbers(offset // 2, rng):
            file.write(piece)


def _random_numbers(count: int, rng: np.random.Generator) -> Iterator[bytes]:
    for start in range(0, count, _PIECE_NUMBERS):
        bits = rng.integers(0, 2**16, size=min(_PIECE_NUMBERS, count - start), dtype=np.uint16)
        yield (bits & _RANDOM_BITS | _EXPONENT).astype("<u2").tobytes()
