"""Stored update bytes to stacked factors, without touching a number where the header is one seen before.

A fleet writes few headers: one for each rank. The first update with a header is read and checked in full by
`hetlora.tensors`; a second one with the very same header has the same names, shapes, dtypes and offsets, so
only its length and its numbers are left to check.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from aggregator_service.aggregation.norms import squared_norms
from aggregator_service.aggregation.stacks import Spacing, StackedAdapter, layout_of, stacked
from hetlora.adapter import Adapter, AdapterSpec
from hetlora.errors import MalformedTensors, NonFiniteValues
from hetlora.tensors import adapter_from_bytes, factor_keys

KNOWN_HEADERS: Final = 256  # of some 15 kB each for 72 modules


@dataclass(slots=True)
class UpdateReader:
    """Reads updates of one specification; remembers the layouts of the headers it met last.

    `norms` is for who will ask for `norms.squared_norms` anyway: taken first, they are the check of the
    numbers too, which saves a pass over them.
    """

    spec: AdapterSpec
    norms: bool = False
    _known: OrderedDict[bytes, tuple[tuple[Spacing, ...], int]] = field(default_factory=OrderedDict)

    def __reduce__(self) -> tuple[Any, ...]:
        return UpdateReader, (self.spec, self.norms)  # what it remembers stays where it was read

    def read(self, data: bytes) -> StackedAdapter:
        """The factors in `data`, of which they are a view where its layout allows.

        Raises:
            MalformedTensors, SpecMismatch, RankOutOfRange, NonFiniteValues: see
                `hetlora.tensors.adapter_from_bytes`.
        """
        start = 8 + int.from_bytes(data[:8], "little")
        header = data[8:start]
        known = self._known.get(header)
        if known is None:
            return self._read_first(data, header, start)
        self._known.move_to_end(header)
        layout, size = known
        if len(data) != size or start != 8 + len(header):
            raise MalformedTensors("size of an update", got=f"{len(data)} bytes", expected=size)
        adapter = StackedAdapter(self.spec, np.frombuffer(data, np.float32, offset=start), layout)
        if not self.norms:
            check_finite(adapter.values)
            return adapter
        squares = squared_norms(adapter)
        if not np.isfinite(sum(own.sum() for own in squares)):
            check_finite(adapter.values)
        return replace(adapter, squared_norms=tuple(squares))

    def _read_first(self, data: bytes, header: bytes, start: int) -> StackedAdapter:
        adapter = adapter_from_bytes(data, self.spec)
        layout = _layout(adapter, json.loads(header))
        if layout is None:
            return stacked(adapter)
        self._known[header] = (layout, len(data))
        if len(self._known) > KNOWN_HEADERS:
            self._known.popitem(last=False)
        return StackedAdapter(self.spec, np.frombuffer(data, np.float32, offset=start), layout)


def _layout(adapter: Adapter, header: dict[str, dict[str, object]]) -> tuple[Spacing, ...] | None:
    """Where factors lie that are all float32 and of equal ranks in each group; None if they are not so."""
    shapes = {}
    for module, factors in adapter:
        entries = [header[key] for key in factor_keys(module.name)]
        if any(entry["dtype"] != "F32" for entry in entries):
            return None
        start_A, start_B = (entry["data_offsets"][0] // 4 for entry in entries)  # type: ignore[index]
        shapes[module.name] = (factors.rank, start_A, start_B)
    return layout_of(adapter.spec, shapes)


def check_finite(values: np.ndarray) -> None:
    """Raise unless every number is finite.

    A dot product is a third of the work of looking at each number, and NaN and infinity always show in it;
    numbers above 1e19, whose squares overflow, show too and are then looked at.

    Raises:
        NonFiniteValues: NaN or infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values @ values):
            return
    strange = values.size - int(np.isfinite(values).sum())
    if strange:
        raise NonFiniteValues(
            "the update holds values that are not finite",
            got=f"{strange} of {values.size}",
            expected="finite float32 values",
        )
