"""Writes the ExecuTorch part of a bundle: a training and an inference program over one file of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from torch import nn

from export.executorch.program import LOSSES, AdaptedModel, class_loss
from export.quiet import quiet_libraries, quiet_loggers, report_to_nobody
from hetlora.adapter import AdapterSpec
from hetlora.errors import DependencyMissing, ModelNotExportable
from hetlora.manifest import ExecutorchFiles, TensorInput

# torchao complains about GPU libraries, and the delegates take notes.
_NOISY_LOGGERS: Final = ("torchao", "torch", "executorch")
FILES: Final = ExecutorchFiles(training="training.pte", inference="inference.pte", base_weights="base.ptd")


def write_executorch(
    model: nn.Module,
    spec: AdapterSpec,
    folder: Path,
    *,
    task: str,
    inputs: Sequence[TensorInput],
    max_batch: int,
    max_tokens: int,
    base: nn.Module | None = None,
    xnnpack_transposes: bool = True,
    progress: Callable[[str], None] = report_to_nobody,
) -> ExecutorchFiles:
    """Compile a model with LoRA into `training.pte`, `inference.pte` and `base.ptd` inside `folder`.

    Args:
        model: float32, with plain attention (`attn_implementation="eager"`); takes `inputs` by name and
            answers logits or an object with `logits`. It is put into evaluation mode, and its parameters stop
            training.
        base: the part of `model` in which the specification's module names are found, if not the whole.
        task: says how the logits are scored, see `LOSSES`.
        xnnpack_transposes: whether XNNPACK transposes too: faster, and on some boards it crashes
            (docs/adr/0027-emulated-aarch64.md).
        max_batch, max_tokens: the programs take any size up to these; they plan their memory for the largest.

    The same model, specification and limits give the same bytes. What XNNPACK refuses is written for the
    portable kernels, and named so in the answer.

    Raises:
        ModelNotExportable: an unknown task, or a model that ExecuTorch cannot take; the message names the
            operator or the cause, and the module.
        DependencyMissing: executorch is not installed.
    """
    if task not in LOSSES:
        raise ModelNotExportable(
            "no ExecuTorch program for this task", got=task, expected=f"one of {[*LOSSES]}"
        )
    loss = LOSSES[task]
    model.eval().requires_grad_(False)
    adapted = AdaptedModel(model, base or model, spec, tuple(tensor.name for tensor in inputs))
    limits = {"batch": max_batch, "tokens": max_tokens}
    require_executorch()
    with quiet_libraries(), quiet_loggers(_NOISY_LOGGERS):
        from export.executorch.graph import trace_inference, trace_training
        from export.executorch.lowering import lower, merge_weights, xnnpack

        delegate = xnnpack(transposes=xnnpack_transposes)
        progress("tracing the inference program")
        traced = trace_inference(adapted, inputs, limits)
        progress("lowering the inference program")
        # First: of an operator without a kernel it knows the module, which the backward pass has forgotten.
        inference = lower(traced, "inference", delegate)
        progress("tracing the training program")
        joint = trace_training(adapted, inputs, limits, loss, label_axes=1 if loss is class_loss else 2)
        progress("lowering the training program")
        training = lower(joint, "training", delegate)
        weights = merge_weights([inference, training])
    (folder / FILES.inference).write_bytes(inference.program)
    (folder / FILES.training).write_bytes(training.program)
    (folder / FILES.base_weights).write_bytes(weights)
    lowered = {FILES.training: training, FILES.inference: inference}
    refusals = {name: program.refusal for name, program in lowered.items() if program.refusal is not None}
    for name, refusal in refusals.items():
        progress(f"XNNPACK refuses {name}, which will be slower on devices: {refusal}")
    return FILES.model_copy(update={"portable": tuple(refusals)})


def require_executorch() -> None:
    """Import what lowers programs.

    Raises:
        DependencyMissing: executorch is not installed, or does not fit torch.
    """
    with quiet_libraries(), quiet_loggers(_NOISY_LOGGERS):
        try:
            import export.executorch.lowering  # noqa: F401
        except ImportError as error:
            raise DependencyMissing(
                "ExecuTorch cannot be imported", got=error, expected="pip install executorch==1.4.1"
            ) from error
