"""A bundle of a few hundred bytes: its tokenizer, its files, its manifest and its adapters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, Tensor
from hetlora.bundle import Bundle
from hetlora.cost import CostModel, StepCost
from hetlora.digest import sha256_of
from hetlora.manifest import (
    MANIFEST_NAME,
    BaseModelInfo,
    GenerationInfo,
    GraphFiles,
    ImageInfo,
    Manifest,
    OptimizerInfo,
    Task,
    TensorInput,
    ToolVersions,
)
from hetlora.messages.common import ObjectRef

SPEC = AdapterSpec(modules=(ModuleSpec("query", 4, 6),), scaling=2.0, max_rank=4)
LABELS = ("cold", "warm")
WORDS = ("[PAD]", "[UNK]", "snow", "ice", "sun", "sand", "and", "[END]")
END = 7


def tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def adapter_of(rank: int, a: float = 0.5, b: float = 0.25) -> Adapter:
    """Every number of lora_A is `a`, every number of lora_B is `b`."""
    return Adapter(
        SPEC, {"query": LoraFactors(np.full((rank, 4), a, np.float32), np.full((6, rank), b, np.float32))}
    )


def lora_b_of(adapter: Adapter) -> Tensor:
    return adapter.factors["query"].lora_B


def ref_of(data: bytes) -> ObjectRef:
    return ObjectRef(sha256=sha256_of(data), size_bytes=len(data))


def tiny_files() -> dict[str, bytes]:
    return {
        "training.onnx": b"training graph",
        "eval.onnx": b"eval graph",
        "optimizer.onnx": b"optimizer graph",
        "inference.onnx": b"inference graph",
        "weights/base.bin": bytes(range(256)) * 40,
        "tokenizer.json": tiny_tokenizer().to_str().encode(),
    }


def tiny_manifest(files: dict[str, bytes], task: Task = "text-classification") -> Manifest:
    """Of text that goes in as numbers of WORDS, or of pictures of 3 x 2 x 2 numbers."""
    is_image, generates = task == "image-classification", task.endswith("generation")
    text_inputs = tuple(
        TensorInput(name=name, dtype="int64", shape=("batch", "tokens"))
        for name in ("input_ids", "attention_mask")
    )
    pixels = TensorInput(name="pixel_values", dtype="float32", shape=("batch", 3, 2, 2))
    own_decoder = task == "text2text-generation"
    return Manifest(
        schema_version=1,
        task=task,
        labels=() if generates else LABELS,
        max_tokens=16,
        base_model=BaseModelInfo(id="tiny", revision=None, sha256="0" * 64, parameters=1),
        adapter=SPEC,
        inputs=(pixels,) if is_image else text_inputs,
        image=ImageInfo(mean=(0.5,) * 3, std=(0.5,) * 3) if is_image else None,
        generation=GenerationInfo(
            vocabulary=len(WORDS), eos_token_ids=(END,), decoder_start_token_id=0 if own_decoder else None
        )
        if generates
        else None,
        optimizer=OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0),
        graphs=GraphFiles(
            training="training.onnx",
            eval="eval.onnx",
            optimizer="optimizer.onnx",
            inference="inference.onnx",
            base_weights="weights/base.bin",
            tokenizer=None if is_image else "tokenizer.json",
        ),
        cost_model=CostModel(
            flops=StepCost(per_token=1000, per_token_per_rank=100),
            written_bytes=StepCost(per_token=100),
            live_bytes=(StepCost(per_token=1000, per_token_per_rank=10),),
            most_chunk_rows=0,
            graph_nodes=10,
            base_weight_bytes=10_240,
            adapter_bytes_per_rank=40,
        ),
        versions=ToolVersions(hetlora="0", onnx="0", onnxruntime="0", opset=17, ir_version=9),
        files={name: ref_of(data) for name, data in files.items()},
    )


def stamped(manifest: Manifest, *, rows: int, tokens: int, rank: int = 4) -> Manifest:
    """The same for one rank, one number of texts and one length of them, as `hetlora bundle stamp` has it."""
    inputs = tuple(tensor.model_copy(update={"shape": (rows, tokens)}) for tensor in manifest.inputs)
    return manifest.model_copy(update={"inputs": inputs, "fixed_rank": rank, "max_tokens": tokens})


def bundle_on_disk(
    folder: Path,
    task: Task = "text-classification",
    tokenizer: Tokenizer | None = None,
    sizes: tuple[int, int] | None = None,
) -> Bundle:
    """Written to a folder; `sizes` are rows and tokens that it is stamped for."""
    files = tiny_files() | ({} if tokenizer is None else {"tokenizer.json": tokenizer.to_str().encode()})
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    manifest = tiny_manifest(files, task)
    if sizes is not None:
        manifest = stamped(manifest, rows=sizes[0], tokens=sizes[1])
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    return Bundle(folder, manifest, sha256_of(manifest.to_json()))
