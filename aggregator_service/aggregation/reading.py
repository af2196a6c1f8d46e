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

from aggregator_service.aggregation.finite import FiniteCheck, check_finite
from aggregator_service.aggregation.norms import squared_norms
from aggregator_service.aggregation.stacks import Spacing, StackedAdapter, layout_of, stacked
from hetlora.adapter import Adapter, AdapterSpec
from hetlora.errors import MalformedTensors
from hetlora.tensors import adapter_from_bytes, factor_keys

KNOWN_HEADERS: Final = 256  # of some 15 kB each for 72 modules


@dataclass(slots=True)
class UpdateReader:
    """Reads updates of one specification; remembers the layouts of the headers it met last.

    `finite` is for who passes over the numbers anyway: taken first, `norms.squared_norms` are a check of them
    too, and a sum of float32 in float64 is finite only if they are. Either saves a pass.
    """

    spec: AdapterSpec
    finite: FiniteCheck = "read"
    _known: OrderedDict[bytes, tuple[tuple[Spacing, ...], int]] = field(default_factory=OrderedDict)

    def __reduce__(self) -> tuple[Any, ...]:
        return UpdateReader, (self.spec, self.finite)  # what it remembers stays where it was read

    def read(self, data: bytes) -> StackedAdapter:
        """The factors in `data`, of which they are a view where its layout allows.

        Raises:
            MalformedTensors, SpecMismatch, RankOutOfRange: see `hetlora.tensors.adapter_from_bytes`.
            NonFiniteValues: see there; left to the sum where `finite` says so.
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
        if self.finite == "sum":
            return adapter
        if self.finite == "read":
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
