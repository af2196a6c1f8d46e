"""A Llama-shaped decoder with random weights, written as Hugging Face saves it: nothing is downloaded.

What a step costs depends on shapes alone. The loss does not, so both sides read the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from tokenizers import Tokenizer  # type: ignore[import-untyped]
from tokenizers.models import WordLevel  # type: ignore[import-untyped]
from tokenizers.pre_tokenizers import Whitespace  # type: ignore[import-untyped]

from export.bundle_writer import export_bundle
from export.quiet import quiet_libraries
from hetlora.bundle import Bundle
from hetlora.manifest import Precision, Recompute

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ATTENTION_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
SCALING: Final = 2.0  # lora_alpha 16 at rank 8

# The batches are random tokens: the tokenizer is there because a bundle holds one.
_VOCABULARY: Final = {"<|endoftext|>": 0, "<unk>": 1, "the": 2, "rain": 3, "falls": 4}


@dataclass(frozen=True, slots=True)
class LlamaSize:
    """The sizes in transformers' names."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int


# HuggingFaceTB/SmolLM-135M, config.json: 134.5 million parameters.
SMOLLM_135M: Final = LlamaSize(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    vocab_size=49152,
)


def write_llama(folder: Path, size: LlamaSize, *, seed: int) -> Path:
    """Write config.json, model.safetensors and a tokenizer of five words; return the folder.

    As SmolLM-135M has it: tied embeddings, rotary positions, no biases, its spread of initial weights.
    """
    # Not above: the exporter, when it is imported first, keeps transformers quiet.
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        LlamaForCausalLM(llama_config(size)).save_pretrained(folder)  # type: ignore[no-untyped-call]
        write_tokenizer(folder)
    return folder


def llama_config(size: LlamaSize) -> PretrainedConfig:
    """SmolLM-135M's configuration in another size."""
    from transformers import LlamaConfig

    return LlamaConfig(  # type: ignore[no-untyped-call]
        **asdict(size),
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        initializer_range=0.041666666666666664,
        bos_token_id=0,
        eos_token_id=0,
    )


def export_llama(
    model: Path,
    out: Path,
    base: Precision,
    recompute: Recompute,
    *,
    max_rank: int,
    max_tokens: int,
    last_layers: int | None = None,
    runtimes: Sequence[str] = ("onnx",),
) -> Bundle:
    """Export a folder of `write_llama` with LoRA on query, key, value and output."""
    return export_bundle(
        str(model),
        out,
        task="text-generation",
        targets=ATTENTION_TARGETS,
        last_layers=last_layers,
        max_rank=max_rank,
        scaling=SCALING,
        max_tokens=max_tokens,
        base=base,
        recompute=recompute,
        runtimes=runtimes,
    )


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of five words."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel(_VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
    ).save_pretrained(folder)
