"""Rounds of the fake service one after the other, and what a device made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from fake_bundle import adapter_of
from fake_service import FakeService
from numpy.typing import NDArray

from edge_sdk.adapters.adapters import Adapters
from edge_sdk.adapters.files import INDEX_NAME
from edge_sdk.adapters.policy import Adoption
from edge_sdk.events import Adopted, Event, NotAdopted
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes.base import Batch, Factors, LogitsModel
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.graph_names import INPUT_IDS
from hetlora.tensors import factor_keys

CAREFUL = Adoption("if_not_worse")


def offer_round(service: FakeService, index: int, b: float) -> None:
    """Round `index` sends an adapter whose lora_B is `b`; three steps take it to 1 - (1 - b) / 8."""
    assert service.offer is not None
    service.global_adapter = adapter_of(4, b=b)
    service.offer = service.offer.model_copy(update={"round_index": index})


def outcomes(events: list[Event]) -> list[type]:
    """What was decided about new adapters."""
    return [type(event) for event in events if isinstance(event, (Adopted, NotAdopted))]


def adapter_files(folder: DeviceFolder) -> set[str]:
    return {path.name for path in folder.adapters.glob("*.safetensors")}


@contextmanager
def unreadable_index(folder: DeviceFolder) -> Iterator[None]:
    """The system refuses to open it (ELOOP), and then it is there again as it was."""
    path, aside = folder.adapters / INDEX_NAME, folder.adapters / "aside"
    path.rename(aside)
    path.symlink_to(path.name)
    try:
        yield
    finally:
        aside.replace(path)


def b_in_use(adapters: Adapters) -> float:
    """The one number of lora_B of the adapter in use."""
    current = adapters.current()
    assert current is not None
    return b_of(adapters.read(current)[1].adapter)


def b_of(adapter: Adapter) -> float:
    """The one number of lora_B."""
    [b] = set(adapter.factors["query"].lora_B.ravel().tolist())
    return float(b)


def fed_b(factors: Factors) -> float:
    """The one number of the adapter's lora_B that a model was opened with; frozen columns come after it."""
    [b] = set(factors[factor_keys("query")[1]][:, 0].tolist())
    return float(b)


@dataclass
class Opener:
    """Opens models that take every text for the first class, the more surely the larger lora_B is."""

    opened: list[tuple[Bundle, Factors | None]] = field(default_factory=list)

    def __call__(
        self, bundle: Bundle, factors: Factors | None = None, *, threads: int | None = None
    ) -> LogitsModel:
        self.opened.append((bundle, factors))
        return Model(0.0 if factors is None else fed_b(factors))


@dataclass
class Model:
    """One of them."""

    surely: float

    def logits(self, batch: Batch, *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        return np.tile(np.array([self.surely, 0], np.float32), (len(batch[INPUT_IDS]), 1))
