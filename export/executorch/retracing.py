"""Keeps ExecuTorch from working out again what an operator gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from executorch.exir.dialects.edge._ops import EdgeOpOverload  # type: ignore[import-untyped]
from executorch.exir.pass_base import _ExportPassBase  # type: ignore[import-untyped]
from executorch.exir.passes.executorch_prim_ops_registry import is_sym_op  # type: ignore[import-untyped]
from torch.fx import Interpreter

# What is equal when it is written alike; all else is equal only to itself.
_PLAIN: Final = (
    int,
    float,
    bool,
    str,
    type(None),
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)


@contextmanager
def results_kept() -> Iterator[None]:
    """Give an operator's result, a shape and a type, from where the same operator had the same inputs.

    Each pass traces the whole program anew, with all its symbolic sizes, however little it changes: that took
    almost half of the time of lowering. The programs are the same, to the byte.
    """
    trace_operator = _ExportPassBase._fx
    kept: dict[object, tuple[object, object]] = {}

    def look_first(tracing: Any, *call: Any) -> Any:
        working_out = tracing.interpreter
        tracing.interpreter = _Kept(working_out, kept)
        try:
            return trace_operator(tracing, *call)
        finally:
            tracing.interpreter = working_out

    _ExportPassBase._fx = look_first
    try:
        yield
    finally:
        _ExportPassBase._fx = trace_operator


class _Kept:
    """Asks an interpreter for what is not kept; inputs are kept, too, so that none takes another's place."""

    def __init__(self, working_out: Interpreter, kept: dict[object, tuple[object, object]]) -> None:
        self._working_out, self._kept = working_out, kept

    def __getattr__(self, kind: str) -> Any:
        return getattr(self._working_out, kind)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operator = target._op if isinstance(target, EdgeOpOverload) else target
        if not _gives_the_same(operator):
            return self._working_out.call_function(target, args, kwargs)
        key = (operator, _key(args), _key(kwargs))
        if key not in self._kept:
            self._kept[key] = (args, kwargs), self._working_out.call_function(target, args, kwargs)
        return self._kept[key][1]


def _gives_the_same(operator: object) -> bool:
    """Whether it is an operator that writes to no input, or arithmetic on sizes."""
    if isinstance(operator, torch._ops.OpOverload):
        return not operator._schema.is_mutable
    return bool(is_sym_op(operator))


def _key(value: object) -> object:
    if isinstance(value, (tuple, list)):
        return tuple(_key(each) for each in value)
    if isinstance(value, dict):
        return tuple((name, _key(each)) for name, each in value.items())
    return (type(value), repr(value)) if isinstance(value, _PLAIN) else id(value)
