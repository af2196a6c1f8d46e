"""What a device visits its service with, and works on an assignment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_sdk.adapters.adapters import Adapters
from edge_sdk.adapters.policy import Adoption
from edge_sdk.conditions import Watch
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.events import Event
from edge_sdk.examples import ExampleStore
from edge_sdk.folder import DeviceFolder
from edge_sdk.planning.corrections import Corrections
from edge_sdk.probe import ModelShape
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.session.adoption import Adopter
from edge_sdk.session.assignment_store import AssignmentStore
from edge_sdk.session.masking_store import MaskingStore
from edge_sdk.transport.bundles import BundleCache
from edge_sdk.transport.downloads import Downloads
from edge_sdk.transport.service import DeviceService
from edge_sdk.transport.uploads import Uploads
from hetlora.messages.device import CapabilityReport


@dataclass(frozen=True, slots=True)
class Equipment:
    """What an assignment is worked on with."""

    service: DeviceService
    downloads: Downloads
    uploads: Uploads
    bundles: BundleCache
    folder: DeviceFolder
    database: DeviceDatabase
    assignments: AssignmentStore
    examples: ExampleStore
    held_out: ExampleStore
    adapters: Adapters
    adoption: Adoption
    capabilities: Callable[[ModelShape], CapabilityReport]  # as they are when it is asked
    corrections: Corrections
    runtime: RuntimeFactory | None  # None: what `runtime_for` finds
    threads: int | None
    watch: Watch
    on_event: Callable[[Event], None]

    @property
    def masking(self) -> MaskingStore:
        """What the assignment under way needs for its masks."""
        return MaskingStore(self.database)

    @property
    def adopter(self) -> Adopter:
        """Who decides about what rounds leave behind."""
        return Adopter(self.adapters, self.adoption, self.held_out, self.runtime, self.threads, self.on_event)
