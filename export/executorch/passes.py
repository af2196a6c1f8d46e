"""Keeps XNNPACK from rewriting a part of a program in ways that cannot change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from executorch.backends.xnnpack import xnnpack_preprocess  # type: ignore[import-untyped]
from executorch.backends.xnnpack._passes import XNNPACKPassManager  # type: ignore[import-untyped]
from torch.export import ExportedProgram

# What the name of an operator holds which the pass looks for; a pass that is not listed is always run.
_LOOKS_FOR: Final = {
    "DimOrderOpsRevertPass": ("dim_order",),
    "ConvertToUpsampleBilinear2d": ("index",),
    "PropagateCustomMetaPass": ("quantize",),
    "ConvertToSDPAPass": ("softmax",),
    "FuseBatchNormPass": ("batch_norm",),
    "DecomposeBatchNorm": ("batch_norm",),
    "FuseActivationPass": ("relu", "hardtanh"),
    "DecomposeConcatenate": ("cat",),
    "RemoveGetItemPass": ("max",),
    "InsertPadQDQPass": ("pad",),
    "Conv1dUnsqueezePass": ("conv",),
    "PReLUReshapePass": ("prelu",),
}


@contextmanager
def needless_passes_left_out() -> Iterator[None]:
    """Run those of XNNPACK's passes alone that a part has operators for.

    Each of its 17 passes traces a part anew, with all its symbolic sizes, whether there is anything to do or
    not: a quarter of the time that lowering took. The programs are the same, to the byte.
    """
    every = xnnpack_preprocess.XNNPACKPassManager
    xnnpack_preprocess.XNNPACKPassManager = _Passes
    try:
        yield
    finally:
        xnnpack_preprocess.XNNPACKPassManager = every


class _Passes(XNNPACKPassManager):  # type: ignore[misc]
    """The passes of a part that may change it."""

    passes: list[type]

    def __init__(self, exported_program: ExportedProgram, passes: list[type] | None = None) -> None:
        super().__init__(exported_program, passes)
        names = {str(node.target) for node in exported_program.graph.nodes if node.op == "call_function"}
        self.passes = [each for each in self.passes if _may_change(each, names)]


def _may_change(each: type, operators: set[str]) -> bool:
    parts = _LOOKS_FOR.get(each.__name__, ("",))
    return any(part in name for part in parts for name in operators)
