"""What becomes an ExecuTorch program, as plain PyTorch: the model with LoRA beside it, the loss, the penalty.

The LoRA factors are inputs of the programs and never their parameters: one program then serves every rank,
and another adapter is nothing but other arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hetlora.adapter import AdapterSpec
from hetlora.algebra import FLOOR_SLACK, NORM_EPSILON
from hetlora.graph_names import IGNORED_LABEL

# lora_A (rank, in_features) and lora_B (out_features, rank) of each module, in the specification's order.
Factors = tuple[tuple[Tensor, Tensor], ...]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """A frozen model and where LoRA goes.

    `model` takes `input_names` by name and answers logits, or an object with `logits`. `base` is the part of
    it in which the specification's module names are found: the model itself, or the encoder of a classifier.
    """

    model: nn.Module
    base: nn.Module
    spec: AdapterSpec
    input_names: tuple[str, ...]

    def logits(self, inputs: Sequence[Tensor], factors: Factors) -> Tensor:
        """The logits under the adapter; W x + scaling * B A x at each module, in whatever layout W is."""
        with self._branches(factors), _TanhGeluInFull():
            answer = self.model(**dict(zip(self.input_names, inputs, strict=True)))
        logits: Tensor = getattr(answer, "logits", answer)
        return logits

    @contextmanager
    def _branches(self, factors: Factors) -> Iterator[None]:
        with ExitStack() as hooks:
            for module, (lora_A, lora_B) in zip(self.spec.modules, factors, strict=True):
                layer = self.base.get_submodule(module.name)
                hook = layer.register_forward_hook(_branch(lora_A, lora_B, self.spec.scaling))
                hooks.callback(hook.remove)
            yield


def _branch(lora_A: Tensor, lora_B: Tensor, scaling: float) -> Callable[..., Tensor]:
    def add(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # Flat throughout: XNNPACK cannot reshape, and would get each product as a part of its own.
        rows = args[0].flatten(end_dim=-2)
        return output + scaling * (rows @ lora_A.T @ lora_B.T).view(output.shape)

    return add


class _TanhGeluInFull(TorchFunctionMode):
    """Writes GELU's approximation by tanh out: XNNPACK has the exact one alone, and runs it for both."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not nn.functional.gelu or kwargs.get("approximate") != "tanh":
            return func(*args, **kwargs)
        (x,) = args
        return 0.5 * x * (1 + torch.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))


class InferenceProgram(nn.Module):
    """The inputs and the factors to logits, float32."""

    def __init__(self, adapted: AdaptedModel) -> None:
        super().__init__()
        self.model, self._adapted = adapted.model, adapted

    def forward(self, inputs: tuple[Tensor, ...], factors: Factors) -> Tensor:
        return self._adapted.logits(inputs, factors)


class TrainingProgram(nn.Module):
    """The inputs, labels, gamma (float64), lambda (float32) and the factors to the loss with the penalty."""

    def __init__(self, adapted: AdaptedModel, loss: Loss) -> None:
        super().__init__()
        self.model, self._adapted, self._loss = adapted.model, adapted, loss

    def forward(
        self,
        inputs: tuple[Tensor, ...],
        labels: Tensor,
        pruning_decay: Tensor,
        pruning_penalty: Tensor,
        factors: Factors,
    ) -> Tensor:
        loss = self._loss(self._adapted.logits(inputs, factors), labels)
        return loss + pruning_penalty * tail_norms(factors, pruning_decay)


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of logits (batch, classes) against labels int64 (batch,)."""
    return -_picked(logits, labels).mean()


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of logits (batch, tokens, vocabulary) against the following label of each row.

    `labels` are int64 (batch, tokens); those that are IGNORED_LABEL do not count. The labels are shifted by
    index: slices one token shorter would make torch.export refuse short inputs, and copy the logits.
    """
    place = torch.arange(labels.shape[1])
    last = labels.shape[1] - 1
    following = labels.index_select(1, (place + 1).clamp(max=last))
    counts = (following != IGNORED_LABEL) & (place != last)
    total = (_picked(logits, following.clamp(min=0)) * counts).sum()
    return -total / counts.sum().clamp(min=1)


def _picked(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def tail_norms(factors: Factors, pruning_decay: Tensor) -> Tensor:
    """HetLoRA's regulariser without lambda: sum ||lora_B[:, c:]||_F * ||lora_A[c:, :]||_F, a scalar.

    c = floor(gamma r) by each module's own rank r, as `hetlora.algebra.pruned_rank`. arXiv 2401.06432,
    section 3.2.
    """
    products = []
    for lora_A, lora_B in factors:
        rank = lora_A.shape[0]
        keep = torch.floor(pruning_decay * rank + FLOOR_SLACK)
        tail = (torch.arange(rank) >= keep).to(torch.float32)
        products.append(_norm(lora_A * tail.unsqueeze(-1)) * _norm(lora_B * tail))
    return torch.stack(products).sum()


def _norm(x: Tensor) -> Tensor:
    return torch.sqrt((x * x).sum() + NORM_EPSILON)


# How a task's logits are scored; the number of axes of its labels is one less than that of its logits.
LOSSES: Final[dict[str, Loss]] = {
    "text-classification": class_loss,
    "image-classification": class_loss,
    "text-generation": next_token_loss,
}
