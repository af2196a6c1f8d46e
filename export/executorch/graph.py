"""Traces the programs with torch.export: symbolic batch, tokens and ranks, and a backward pass."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.experimental import _export_forward_backward
from torch.export.graph_signature import OutputKind

from export.executorch.cleaning import clean
from export.executorch.program import AdaptedModel, InferenceProgram, Loss, TrainingProgram
from export.quiet import first_line
from hetlora.errors import ModelNotExportable
from hetlora.manifest import TensorInput

# Sizes while tracing; torch.export takes 0 and 1 for constants. Their values leave no trace in the programs.
_EXAMPLE_SIZES: Final = {"batch": 3, "tokens": 5}
_OTHER_SIZE: Final = 2
_DTYPES: Final = {"int64": torch.int64, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class _Sized:
    """An example of an input, and the symbol of each axis that is no constant."""

    example: Tensor
    axes: dict[int, Any]


class _Arguments:
    """Makes the inputs of both programs; each symbol has an upper limit, and a limit of 1 is a constant."""

    def __init__(
        self, adapted: AdaptedModel, inputs: Sequence[TensorInput], limits: Mapping[str, int]
    ) -> None:
        # One symbol for each module: modules may have unequal ranks.
        self._ranks = [f"rank_{place}" for place in range(len(adapted.spec.modules))]
        self._limits = {**limits, **dict.fromkeys(self._ranks, adapted.spec.max_rank)}
        self._symbols = {
            name: Dim(name, min=1, max=limit) for name, limit in self._limits.items() if limit > 1
        }
        self._modules = adapted.spec.modules
        self._inputs = inputs

    def inputs(self) -> tuple[_Sized, ...]:
        return tuple(self._sized(tensor.shape, _DTYPES[tensor.dtype]) for tensor in self._inputs)

    def labels(self, axes: int) -> _Sized:
        return self._sized(self._inputs[0].shape[:axes], torch.int64)

    def scalar(self, dtype: torch.dtype) -> _Sized:
        return self._sized((), dtype)

    def factors(self) -> tuple[tuple[_Sized, _Sized], ...]:
        return tuple(
            (
                self._sized((rank, module.in_features), torch.float32),
                self._sized((module.out_features, rank), torch.float32),
            )
            for rank, module in zip(self._ranks, self._modules, strict=True)
        )

    def _sized(self, shape: tuple[int | str, ...], dtype: torch.dtype) -> _Sized:
        sizes = [self._example_size(axis) if isinstance(axis, str) else axis for axis in shape]
        symbols = {place: self._symbols[axis] for place, axis in enumerate(shape) if axis in self._symbols}
        return _Sized(torch.ones(sizes, dtype=dtype), symbols)

    def _example_size(self, symbol: str) -> int:
        return min(_EXAMPLE_SIZES.get(symbol, _OTHER_SIZE), self._limits[symbol])


def trace_inference(
    adapted: AdaptedModel, inputs: Sequence[TensorInput], limits: Mapping[str, int]
) -> ExportedProgram:
    """The forward pass: inputs in the manifest's order, then lora_A and lora_B of each module.

    `limits` bounds each symbolic axis of the inputs ("batch", "tokens"); ranks go up to the specification's.

    Raises:
        ModelNotExportable: torch.export cannot follow the model; the message names the module.
    """
    arguments = _Arguments(adapted, inputs, limits)
    exported: ExportedProgram = _export(
        InferenceProgram(adapted), adapted, (arguments.inputs(), arguments.factors())
    )
    exported = exported.run_decompositions({})  # nothing but vmap, which transformers' masks are made with
    clean(exported)
    return exported


def trace_training(
    adapted: AdaptedModel,
    inputs: Sequence[TensorInput],
    limits: Mapping[str, int],
    loss: Loss,
    *,
    label_axes: int,
) -> ExportedProgram:
    """Forward and backward: the inputs, labels, gamma, lambda and factors to the loss and their gradients.

    Labels are int64 of the first `label_axes` axes of the inputs. The gradients follow the loss in the
    order of the factors.

    Raises:
        ModelNotExportable: as `trace_inference`, or the model changes buffers of its own.
    """
    arguments = _Arguments(adapted, inputs, limits)
    factors = arguments.factors()
    for pair in factors:
        for factor in pair:
            factor.example.requires_grad_()
    scalars = (arguments.scalar(torch.float64), arguments.scalar(torch.float32))
    sized = (arguments.inputs(), arguments.labels(label_axes), *scalars, factors)
    exported = _export(TrainingProgram(adapted, loss), adapted, sized)
    try:
        joint = _export_forward_backward(exported)
    except Exception as error:  # torch's passes raise whatever their checks raise
        raise ModelNotExportable(
            "the backward pass cannot be traced", got=first_line(error), expected="core ATen operators"
        ) from error
    _check_gradients(joint, adapted)
    clean(joint)
    return joint


def _export(program: nn.Module, adapted: AdaptedModel, sized: tuple[Any, ...]) -> ExportedProgram:
    examples = torch.utils._pytree.tree_map(lambda leaf: leaf.example, sized)
    axes = torch.utils._pytree.tree_map(lambda leaf: leaf.axes, sized)
    try:
        return torch.export.export(program, tuple(examples), dynamic_shapes=tuple(axes), strict=False)
    except Exception as error:  # the model's own code raises here, too
        raise ModelNotExportable(
            f"torch.export cannot follow module {_module_of(error, adapted.model)}",
            got=_broken_constraint(error) or first_line(error),
            expected="a model of symbolic batch and length; at the model's own limit, one token less may do",
        ) from error


def _module_of(error: BaseException, model: nn.Module) -> str:
    """The module whose code raised: the innermost one on the stack."""
    names = {id(module): name for name, module in model.named_modules()}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = (names.get(id(frame.f_locals.get("self"))) for frame in reversed(frames))
    return next((name for name in owners if name), type(model).__name__)


def _broken_constraint(error: Exception) -> str | None:
    """The part of a message of torch's that helps, which stands in a list below its first line."""
    lines = (line.strip("- ") for line in str(error).splitlines())
    return next((line for line in lines if line.startswith("Not all values")), None)


def _check_gradients(joint: ExportedProgram, adapted: AdaptedModel) -> None:
    """Raise unless the outputs are the loss and a gradient for each factor; a model might write buffers."""
    kinds = [output.kind for output in joint.graph_signature.output_specs]
    if kinds != [OutputKind.LOSS_OUTPUT] + [OutputKind.GRADIENT_TO_USER_INPUT] * (
        2 * len(adapted.spec.modules)
    ):
        raise ModelNotExportable(
            "the training program does more than give the loss and its gradients",
            got=sorted({kind.name for kind in kinds}),
            expected="a model that changes no state of its own",
        )
