"""Tiny random models as ExecuTorch bundles, and the same models in PyTorch and PEFT for comparison."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from edge_sdk.runtimes.base import Batch
from export.executorch_files import write_executorch
from export.quiet import quiet_libraries
from export.reference import PrototypeClassifier
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.algebra import pruned_rank
from hetlora.bundle import Bundle
from hetlora.manifest import (
    BaseModelInfo,
    CostModel,
    ExecutorchFiles,
    GraphFiles,
    Manifest,
    OptimizerInfo,
    TensorInput,
    ToolVersions,
)
from hetlora.tensors import factor_keys, write_peft_folder

VOCABULARY = 61
HIDDEN = 32
POSITIONS = 48
MAX_TOKENS = 12
MAX_BATCH = 5
MAX_RANK = 8
LABELS = ("weather", "food", "sport")
OPTIMIZER = OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.01)


@dataclass(frozen=True)
class Family:
    """A model in PyTorch, the part that PEFT wraps, and what is to be done with it."""

    model: nn.Module
    base: PreTrainedModel
    spec: AdapterSpec
    task: str
    inputs: tuple[TensorInput, ...]


def bert() -> Family:
    """Text classification with frozen prototypes; LoRA on attention and on the layers after it."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * HIDDEN,
        max_position_embeddings=POSITIONS,
        attn_implementation="eager",
    )
    with _seeded():
        base = _shaken(BertModel(config))
        prototypes = nn.functional.normalize(torch.randn(len(LABELS), HIDDEN), dim=-1)
    names = ("attention_mask", "input_ids", "token_type_ids")
    spec = _spec(base, "query", "value", "output.dense")
    return Family(PrototypeClassifier(base, prototypes), base, spec, "text-classification", _inputs(*names))


def llama() -> Family:
    """A causal language model with grouped heads, silu and rotary positions; LoRA on attention and MLP."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        attn_implementation="eager",
        use_cache=False,
    )
    with _seeded():
        base = _shaken(LlamaForCausalLM(config))
    spec = _spec(base, "q_proj", "v_proj", "down_proj")
    return Family(base, base, spec, "text-generation", _inputs("attention_mask", "input_ids"))


def gpt2() -> Family:
    """A causal language model of Conv1D layers, whose weights lie transposed, with a fused qkv."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=HIDDEN,
        n_layer=2,
        n_head=4,
        n_positions=POSITIONS,
        attn_implementation="eager",
        use_cache=False,
    )
    with _seeded():
        base = _shaken(GPT2LMHeadModel(config))
    spec = _spec(base, "c_attn", "c_fc")
    return Family(base, base, spec, "text-generation", _inputs("attention_mask", "input_ids"))


FAMILIES = {"bert": bert, "llama": llama, "gpt2": gpt2}


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _shaken(model: PreTrainedModel) -> PreTrainedModel:
    """No two weights equal, as in a trained model."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def _spec(base: nn.Module, *targets: str) -> AdapterSpec:
    modules = [
        ModuleSpec(name, *(layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]))
        for name, layer in sorted(base.named_modules())
        if name.endswith(targets)
    ]
    return AdapterSpec(tuple(modules), 2.0, MAX_RANK)


def _inputs(*names: str) -> tuple[TensorInput, ...]:
    return tuple(TensorInput(name=name, dtype="int64", shape=("batch", "tokens")) for name in names)


def make_bundle(family: Family, folder: Path) -> tuple[Bundle, dict[str, str]]:
    """The ExecuTorch part of a bundle, in a manifest whose other files do not exist; and what runs it."""
    written = write_executorch(
        family.model,
        family.spec,
        folder,
        task=family.task,
        inputs=family.inputs,
        max_batch=MAX_BATCH,
        max_tokens=MAX_TOKENS,
        base=family.base,
    )
    return Bundle(folder, manifest_of(family, written.files), "0" * 64), written.backends


def manifest_of(family: Family, files: ExecutorchFiles | None) -> Manifest:
    return Manifest(
        schema_version=1,
        task="text-classification",
        labels=LABELS,
        max_tokens=MAX_TOKENS,
        base_model=BaseModelInfo(id="tiny", revision=None, sha256="0" * 64, parameters=1),
        adapter=family.spec,
        inputs=family.inputs,
        optimizer=OPTIMIZER,
        graphs=GraphFiles(**dict.fromkeys(GraphFiles.model_fields, "absent.onnx")),
        executorch=files,
        cost_model=CostModel(**dict.fromkeys(CostModel.model_fields, 0)),
        versions=ToolVersions(hetlora="0", onnx="0", onnxruntime="0", opset=18, ir_version=9),
        files={},
    )


def batch_of(family: Family, rows: int = 4, tokens: int = 9) -> Batch:
    """Rows of unlike length, padded on the right; labels of padding are ignored."""
    rng = np.random.default_rng(1)
    lengths = tokens - np.arange(rows)[:, None] % min(4, tokens)
    attention_mask = (np.arange(tokens) < lengths).astype(np.int64)
    input_ids = rng.integers(1, VOCABULARY, (rows, tokens)) * attention_mask
    if family.task == "text-classification":
        labels = rng.integers(0, len(LABELS), rows)
    else:
        labels = np.where(attention_mask == 1, input_ids, -100)
    fields = {"attention_mask": attention_mask, "input_ids": input_ids, "labels": labels}
    return fields | (
        {"token_type_ids": np.zeros_like(input_ids)} if family.task == "text-classification" else {}
    )


def trained_adapter(spec: AdapterSpec, *ranks: int) -> Adapter:
    """Both factors away from zero, as after some training; the ranks go round over the modules."""
    rng = np.random.default_rng(2)
    factors = {}
    for place, module in enumerate(spec.modules):
        fresh = initial_adapter(spec, ranks[place % len(ranks)], rng).factors[module.name]
        factors[module.name] = LoraFactors(fresh.lora_A, 0.1 * rng.standard_normal(fresh.lora_B.shape))
    return Adapter(spec, factors)


class PeftTwin:
    """The training problem in PyTorch and PEFT; `factors` holds the trainable tensors by PEFT key."""

    def __init__(self, make: str, adapter: Adapter, scratch: Path) -> None:
        family = FAMILIES[make]()  # a model of its own: PEFT changes it
        write_peft_folder(adapter, scratch, base_model="tiny")
        with quiet_libraries():  # PEFT finds out by itself that a Conv1D lies transposed, and warns of it
            wrapped = PeftModel.from_pretrained(family.base, scratch)
        if isinstance(family.model, PrototypeClassifier):
            self._model: nn.Module = PrototypeClassifier(wrapped, family.model.prototypes)
        else:
            self._model = wrapped
        self._model.eval()
        self._inputs = [tensor.name for tensor in family.inputs]
        # The classifier's name before, and "default", PEFT's name of the adapter, are none of the key.
        self.factors = {
            name.removeprefix("encoder.").replace(".default", ""): parameter.requires_grad_()
            for name, parameter in self._model.named_parameters()
            if "lora_" in name
        }
        self._ranks = adapter.ranks

    def logits(self, batch: Batch) -> Tensor:
        answer = self._model(**{name: torch.from_numpy(batch[name]) for name in self._inputs})
        logits: Tensor = getattr(answer, "logits", answer)
        return logits

    def loss(self, batch: Batch, *, pruning_decay: float, pruning_penalty: float) -> Tensor:
        """Cross entropy + lambda * sum ||B[:, c:]|| ||A[c:, :]|| with c = floor(gamma r), and no epsilon."""
        logits, labels = self.logits(batch), torch.from_numpy(batch["labels"])
        if labels.ndim == 2:
            logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        norm = torch.linalg.matrix_norm
        tails = [torch.zeros(())]
        for name, rank in self._ranks.items():
            keep = pruned_rank(rank, pruning_decay)
            if rank > 0:
                lora_A, lora_B = (self.factors[key] for key in factor_keys(name))
                tails.append(norm(lora_B[:, keep:]) * norm(lora_A[keep:]))
        cross_entropy = nn.functional.cross_entropy(logits, labels, ignore_index=-100)
        return cross_entropy + pruning_penalty * torch.stack(tails).sum()
