"""Bundles whose frozen weights take so much, and devices that have so much for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fake_bundle import tiny_files, tiny_manifest
from fake_service import FakeService
from strong_device import STRONG

from edge_sdk.planning.forecast import PROCESS_BYTES
from edge_sdk.planning.planner import MEMORY_SHARE
from hetlora.bundle import Bundle
from hetlora.cost import StepCost
from hetlora.digest import sha256_of
from hetlora.manifest import MANIFEST_NAME, Manifest, Precision
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import CapabilityReport

MB = 1_000_000
WEIGHTS = "weights/base.bin"
Change = Callable[[Manifest], Manifest]


def weighing(base_mb: int, precision: Precision = "float32", **changes: object) -> Change:
    """A peak of `base_mb` and 60 MB for each rank: six copies of 10 MB."""

    def change(manifest: Manifest) -> Manifest:
        costs = {
            "base_weight_bytes": base_mb * MB,
            "adapter_bytes_per_rank": 10 * MB,
            "graph_nodes": 0,
            "live_bytes": (StepCost(),),
        }
        cost_model = manifest.cost_model.model_copy(update=costs)
        fields = {"cost_model": cost_model, "base_precision": precision}
        return manifest.model_copy(update=fields | changes)

    return change


def weights_of(precision: str) -> bytes:
    """Of a variant: other bytes in each precision."""
    return f"weights in {precision}".encode() * 100


def offer_variant(service: FakeService, change: Change) -> ObjectRef:
    """Offer one more variant of the bundle, which has weights of its own."""
    assert service.offer is not None
    precision = change(tiny_manifest(service.files)).base_precision
    files = service.files | {WEIGHTS: weights_of(precision)}
    manifest = change(tiny_manifest(files)).to_json()
    ref = ObjectRef(sha256=sha256_of(manifest), size_bytes=len(manifest))
    service.objects |= {sha256_of(data): data for data in (files[WEIGHTS], manifest)}
    service.names |= {sha256_of(files[WEIGHTS]): f"{precision} weights", ref.sha256: f"{precision} manifest"}
    variants = (*service.offer.variants, ref)
    service.offer = service.offer.model_copy(update={"variants": variants})
    return ref


def variant_on_disk(folder: Path, change: Change) -> Bundle:
    """Written to a folder, to be published."""
    precision = change(tiny_manifest(tiny_files())).base_precision
    files = tiny_files() | {WEIGHTS: weights_of(precision)}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    manifest = change(tiny_manifest(files))
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    return Bundle(folder, manifest, sha256_of(manifest.to_json()))


def with_room_for(model_mb: int) -> CapabilityReport:
    """A device that may just use so much beside what every process takes."""
    free = int((PROCESS_BYTES + model_mb * MB) / MEMORY_SHARE) + 2
    return STRONG.model_copy(update={"memory_available_bytes": free})
