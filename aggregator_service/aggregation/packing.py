"""Partials as arrays by name, and back to the last bit: what is kept of a reduction, or sent of it.

A name is the path to an array through the fields, places and keys of a partial. What an array means follows
from an empty partial of the same rule, so that nothing has to say it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.products import ProductStack
from aggregator_service.aggregation.stacks import Spacing, StackedAdapter
from hetlora.adapter import AdapterSpec
from hetlora.errors import MalformedTensors

Arrays = dict[str, NDArray[Any]]
Partial = TypeVar("Partial")


def is_bounded(partial: Any) -> bool:
    """Whether it takes no more room the more updates it is of; a stack is the updates themselves."""
    return not isinstance(partial, ProductStack) and all(is_bounded(own) for _, own in _parts(partial))


def packed(partial: Any, name: str) -> Arrays:
    """The arrays of a bounded partial by their names, of which `name` is the first part; no copies."""
    if isinstance(partial, np.ndarray | int | float):
        return {name: np.asarray(partial)}
    if isinstance(partial, StackedAdapter):
        return _packed_adapter(partial, name)
    return {
        key: own for part, value in _parts(partial) for key, own in packed(value, f"{name}.{part}").items()
    }


def unpacked(empty: Partial, name: str, arrays: Arrays, spec: AdapterSpec) -> Partial:
    """The partial that was packed under a name; its arrays are taken out of `arrays`.

    Args:
        empty: what `Rule.init` gives; it stays as it is.

    Raises:
        MalformedTensors: they are not those of such a partial.
    """
    try:
        unpacked: Partial = _unpacked(empty, name, arrays, spec)
    except (KeyError, ValueError, TypeError) as error:
        raise MalformedTensors("arrays of a partial", got=f"{type(error).__name__}: {error}") from error
    return unpacked


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value consists of, by name; nothing of what is the same in every partial of a rule."""
    if isinstance(value, dict):
        yield from sorted(value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(place), own) for place, own in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, AdapterSpec | StackedAdapter):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))


def _packed_adapter(adapter: StackedAdapter, name: str) -> Arrays:
    layout = [
        (at.rank, at.lora_A_start, at.lora_A_step, at.lora_B_start, at.lora_B_step) for at in adapter.layout
    ]
    ranks = {f"{name}.ranks.{index}": own for index, own in enumerate(adapter.module_ranks or ())}
    return {f"{name}.values": adapter.values, f"{name}.layout": np.array(layout, np.int64)} | ranks


def _unpacked(empty: Any, name: str, arrays: Arrays, spec: AdapterSpec) -> Any:
    if isinstance(empty, AdapterSpec):
        return empty
    if isinstance(empty, np.ndarray):
        return _like(empty, name, arrays.pop(name))
    if isinstance(empty, int | float):
        return type(empty)(_like(np.asarray(empty), name, arrays.pop(name)))
    if isinstance(empty, StackedAdapter):
        adapter = _unpacked_adapter(name, arrays, spec)
        _like(empty.values, name, adapter.values)
        return adapter
    if isinstance(empty, list):
        return [_unpacked(own, f"{name}.{place}", arrays, spec) for place, own in _parts(empty)]
    below = [key.removeprefix(f"{name}.") for key in arrays if key.startswith(f"{name}.")]
    if isinstance(empty, dict):  # of adapters with a weight each, as `ResidualPartial` has them
        return {
            key: (
                _unpacked_adapter(f"{name}.{key}.0", arrays, spec),
                _unpacked(0.0, f"{name}.{key}.1", arrays, spec),
            )
            for key in dict.fromkeys(key.partition(".")[0] for key in below)
        }
    if not below:  # what a partial no longer needs, such as the plain sums of `HetLoraPartial`
        return None
    return type(empty)(*(_unpacked(own, f"{name}.{part}", arrays, spec) for part, own in _parts(empty)))


def _unpacked_adapter(name: str, arrays: Arrays, spec: AdapterSpec) -> StackedAdapter:
    layout = tuple(Spacing(*map(int, row)) for row in arrays.pop(f"{name}.layout"))
    values = np.array(arrays.pop(f"{name}.values"))
    ranks: list[NDArray[np.intp]] = []
    while (own := arrays.pop(f"{name}.ranks.{len(ranks)}", None)) is not None:
        ranks.append(np.array(own, np.intp))
    return StackedAdapter(spec, values, layout, tuple(ranks) or None)


def _like(empty: NDArray[Any], name: str, array: NDArray[Any]) -> NDArray[Any]:
    """A copy of an array, to write to, if it is of the form of the empty one."""
    if (array.shape, array.dtype) != (empty.shape, empty.dtype):
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {empty.dtype} {empty.shape}")
    return np.array(array)
