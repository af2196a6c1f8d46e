"""A bundle that comes slowly: what is planned after it is planned on the memory and the time of then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_bundle import bundle_on_disk
from fake_runtime import Opened
from fake_service import FakeService
from strong_device import STRONG

from edge_sdk.conditions import Watch
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.examples import ExampleStore
from edge_sdk.folder import DeviceFolder
from edge_sdk.planning.corrections import Corrections
from edge_sdk.session.choosing import Choosing
from hetlora.bundle import Bundle
from hetlora.errors import DeviceTooSmall
from hetlora.manifest import Manifest
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import CapabilityReport


class SlowLine:
    """A bundle that takes so many seconds to come, in which another app takes all memory but so much."""

    def __init__(self, bundle: Bundle, seconds: float, memory_left: int) -> None:
        self._bundle, self._seconds, self._memory_left = bundle, seconds, memory_left
        self.now = 0.0
        self.memory = STRONG.memory_available_bytes

    def manifest(self, ref: ObjectRef) -> Manifest:
        return self._bundle.manifest

    def make_room(self, ref: ObjectRef) -> None:
        """There is room."""

    def missing_bytes(self, ref: ObjectRef) -> int:
        return 1000 if self.now == 0 else 0

    def bundle(self, ref: ObjectRef) -> Bundle:
        if self.now == 0:
            self.now, self.memory = self._seconds, self._memory_left
        return self._bundle

    def capabilities(self, shape: object) -> CapabilityReport:
        return STRONG.model_copy(update={"source": "measured", "memory_available_bytes": self.memory})


@pytest.mark.parametrize(
    ("seconds", "memory_left", "lacking"),
    [(700.0, 2**32, "time"), (10.0, 2**20, "memory"), (10.0, 2**32, None)],
)
def test_device_declines_what_no_longer_fits_once_the_bundle_is_here(
    folder: DeviceFolder, tmp_path: Path, seconds: float, memory_left: int, lacking: str | None
) -> None:
    opened, offer = Opened(), FakeService().offer
    assert offer is not None  # of 600 seconds
    bundle = bundle_on_disk(tmp_path / "bundle")
    line, database = SlowLine(bundle, seconds, memory_left), DeviceDatabase(folder.database)
    with ExampleStore(tmp_path / "examples") as examples:
        examples.put("snow and ice", "cold")
        tools: Any = SimpleNamespace(
            bundles=line,
            capabilities=line.capabilities,
            corrections=Corrections(database),
            held_out=examples,
            runtime=opened,
            threads=1,
            watch=Watch(),
        )

        def chosen() -> int:
            _, choice = Choosing(offer, examples, tools, timer=lambda: line.now).result()
            return choice.rank

        if lacking is None:
            assert chosen() == 4
        else:
            with pytest.raises(DeviceTooSmall, match=f"for lack of {lacking}"):
                chosen()
            assert opened.runtimes == []
    database.close()
