"""The families of models whose training is held against PyTorch and PEFT in the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from hetlora.manifest import Task

Runtime = Literal["onnx", "executorch", "pytorch"]

_MOST: Final[tuple[Runtime, ...]] = ("onnx", "pytorch")
_ALL: Final[tuple[Runtime, ...]] = ("onnx", "executorch", "pytorch")


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture (`model_type` in config.json) at one task, tested with a small random model.

    `models` are well-known ids on the hub, `targets` an example for `--targets`, `runtimes` those that the
    family is tested with.
    """

    architecture: str
    task: Task
    models: tuple[str, ...]
    targets: tuple[str, ...]
    runtimes: tuple[Runtime, ...] = _MOST


FAMILIES: Final = (
    Family(
        "llama",
        "text-generation",
        ("HuggingFaceTB/SmolLM2-135M", "meta-llama/Llama-3.2-1B"),
        ("q_proj", "v_proj", "down_proj"),
        _ALL,
    ),
    Family("qwen2", "text-generation", ("Qwen/Qwen2.5-0.5B",), ("q_proj", "v_proj", "up_proj"), _ALL),
    Family("qwen3", "text-generation", ("Qwen/Qwen3-0.6B",), ("q_proj", "v_proj", "o_proj"), _ALL),
    Family("gemma", "text-generation", ("google/gemma-2b",), ("q_proj", "v_proj"), _ALL),
    Family("gemma2", "text-generation", ("google/gemma-2-2b",), ("q_proj", "v_proj", "gate_proj"), _ALL),
    Family(
        "gemma3_text", "text-generation", ("google/gemma-3-270m",), ("q_proj", "v_proj", "gate_proj"), _ALL
    ),
    Family(
        "phi3", "text-generation", ("microsoft/Phi-3-mini-4k-instruct",), ("qkv_proj", "gate_up_proj"), _ALL
    ),
    Family("gpt2", "text-generation", ("openai-community/gpt2",), ("c_attn", "c_fc"), _ALL),
    Family("opt", "text-generation", ("facebook/opt-125m",), ("q_proj", "v_proj", "fc1"), _ALL),
    Family(
        "gpt_neox", "text-generation", ("EleutherAI/pythia-70m",), ("query_key_value", "dense_h_to_4h"), _ALL
    ),
    Family(
        "bert",
        "text-classification",
        ("google-bert/bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"),
        ("query", "value"),
        _ALL,
    ),
    Family(
        "distilbert",
        "text-classification",
        ("distilbert/distilbert-base-uncased",),
        ("q_lin", "v_lin"),
        _ALL,
    ),
    Family("roberta", "text-classification", ("FacebookAI/roberta-base",), ("query", "value"), _ALL),
    Family("mobilebert", "text-classification", ("google/mobilebert-uncased",), ("query", "value")),
    Family("xlm-roberta", "text-classification", ("FacebookAI/xlm-roberta-base",), ("query", "value")),
    Family("electra", "text-classification", ("google/electra-small-discriminator",), ("query", "value")),
    Family(
        "mpnet", "text-classification", ("sentence-transformers/all-mpnet-base-v2",), ("attn.q", "attn.v")
    ),
    Family("modernbert", "text-classification", ("answerdotai/ModernBERT-base",), ("Wqkv", "Wi")),
    # Its queries and keys serve the relative positions too, and what is shared cannot be a target.
    Family("deberta-v2", "text-classification", ("microsoft/deberta-v3-small",), ("value_proj",)),
    Family("vit", "image-classification", ("google/vit-base-patch16-224",), ("query", "value"), _ALL),
    Family("t5", "text2text-generation", ("google-t5/t5-small",), ("q", "v")),
)
