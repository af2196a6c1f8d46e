"""Runs a model whose weights have shapes but no values, so that tracing it takes no memory for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Where each weight is held: the module, and the name of its attribute. A tied weight has several places.
Places = dict[str, list[tuple[nn.Module, str]]]

_LINEAR: Final = (nn.functional.linear, torch.addmm)  # nn.Linear, and Conv1D
_PRODUCTS: Final = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


@contextmanager
def weights_taken_out(model: nn.Module) -> Iterator[tuple[Places, dict[str, Tensor]]]:
    """For a while the model has no weights, but places for them and stand-ins of the same shapes.

    Weights are its parameters, and the floating-point buffers that its checkpoints hold; names are those of
    the state_dict, the first where a weight is tied. Each stand-in is one zero seen through strides of zero.
    """
    saved = set(model.state_dict(keep_vars=True))
    by_identity: dict[int, tuple[str, Tensor]] = {}
    places: Places = {}
    taken = []
    for path, module in model.named_modules():
        for held in (module._parameters, module._buffers):
            for leaf, weight in list(held.items()):
                name = f"{path}.{leaf}".lstrip(".")
                if weight is None or name not in saved or not weight.is_floating_point():
                    continue
                first, _ = by_identity.setdefault(id(weight), (name, weight))
                places.setdefault(first, []).append((module, leaf))
                taken.append((module, held, leaf, held.pop(leaf)))
    try:
        zero = torch.zeros(())
        yield places, {name: zero.expand(weight.shape) for name, weight in by_identity.values()}
    finally:
        for module, held, leaf, weight in taken:
            module.__dict__.pop(leaf, None)
            held[leaf] = weight


def tied_names(model: nn.Module) -> dict[str, list[str]]:
    """By the name of each weight that has several: those, any of which a checkpoint may go by."""
    names: dict[int, list[str]] = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        names.setdefault(id(weight), []).append(name)
    return {name: tied for tied in names.values() if len(tied) > 1 for name in tied}


def put_weights(places: Places, weights: Mapping[str, Tensor]) -> None:
    """Let the modules read these tensors, as plain attributes, where their weights were."""
    for name, tensor in weights.items():
        for module, leaf in places[name]:
            setattr(module, leaf, tensor)


class UnreadMatrices(TorchFunctionMode):
    """Answers zeros for the product with a matrix that has no values, which would be copied out otherwise.

    Around linear layers alone: below other functions the tracer would miss operators, such as convolutions.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        products: AbstractContextManager[object] = nullcontext()
        if func in _LINEAR:
            products = _ZeroProducts()  # type: ignore[no-untyped-call]
        with products:
            return func(*args, **(kwargs or {}))


class _ZeroProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _PRODUCTS:
            left, right = args[-2:]
            if not any(right.stride()):
                return left.new_zeros(left.shape[0], right.shape[1])
        return func(*args, **(kwargs or {}))
