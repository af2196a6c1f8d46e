"""Bytes of a round, counted in the files that go down and up, at each rank and precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, get_args

import numpy as np
from rich.table import Table

from benchmarks.bundle_bytes import bundle_bytes
from benchmarks.device.section import Section, Setting
from benchmarks.device.training import Case, first_round
from benchmarks.step_shapes import Shape
from edge_sdk.runtimes import runtimes_with_files
from edge_sdk.training.error_feedback import contract_with_feedback
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.digest import sha256_of
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Adaptation, Report, UploadPrecision
from hetlora.partial import contract
from hetlora.sent_parts import at_precision
from hetlora.tensors import adapter_from_bytes, from_tensors, to_tensors

PRECISIONS: Final[tuple[UploadPrecision, ...]] = get_args(UploadPrecision)


@dataclass(frozen=True, slots=True)
class TrafficRow:
    """One round at one rank; files of adapters, and `message_bytes` of the JSON of offer, plan and report.

    What HTTP and TLS add is in none of them.
    """

    model: str
    rank: int
    precision: UploadPrecision
    down_bytes: int
    up_bytes: int
    message_bytes: int


def traffic_section(setting: Setting, ranks: Sequence[int], shapes: Sequence[Shape]) -> Section:
    """Make what a round sends of every bundle, at each rank that it has and in each precision."""
    rows = []
    for name, bundle in setting.bundles.items():
        setting.tell(f"{name}: bytes of a round")
        rows += [
            traffic_row(name, bundle, rank, precision, seed=setting.seed)
            for rank in ranks
            for precision in PRECISIONS
        ]
    fetched = {name: fetched_bytes(bundle) for name, bundle in setting.bundles.items()}
    return Section({"bundle_bytes": fetched, "traffic": [asdict(row) for row in rows]}, _table(rows, fetched))


def fetched_bytes(bundle: Bundle) -> dict[str, int]:
    """What a device fetches of a bundle once, by the runtime that it trains with; and `all` that there is."""
    manifest = bundle.manifest
    fetched = {
        str(name): bundle_bytes(bundle, manifest.files_of(name)) for name in runtimes_with_files(bundle)
    }
    return fetched | {"all": bundle_bytes(bundle, manifest.files)}


def traffic_row(
    model: str, bundle: Bundle, rank: int, precision: UploadPrecision, *, seed: int
) -> TrafficRow:
    """The files of one round; numbers at random stand in for its training, and take as many bytes."""
    case = Case(bundle, rank, batch=1, tokens=1, threads=1, steps=1, seed=seed)
    offer, terms, down = first_round(case)
    received = adapter_from_bytes(down.adapter, bundle.manifest.adapter)
    adaptation = at_precision(Adaptation(), precision, same_coordinates=True)
    trained = _moved(received, seed)
    if adaptation.error_feedback:
        up, _ = contract_with_feedback(trained, adaptation, received, {})
    else:
        up = contract(trained, adaptation, received)
    report = Report(
        update=ObjectRef(sha256=sha256_of(up), size_bytes=len(up)),
        rank=rank,
        example_count=64,
        steps=10,
        first_loss=1.234567890123456,
        last_loss=0.123456789012345,
        training_seconds=12.34567890123456,
        peak_memory_bytes=345_678_912,
        downloaded_bytes=len(down.adapter),
    )
    messages = (offer, terms.plan.model_copy(update={"adaptation": adaptation}), report)
    message_bytes = sum(len(message.model_dump_json().encode()) for message in messages)
    return TrafficRow(model, rank, precision, len(down.adapter), len(up), message_bytes)


def _moved(adapter: Adapter, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    return from_tensors(
        adapter.spec,
        {
            key: tensor + 1e-3 * rng.standard_normal(tensor.shape, dtype=np.float32)
            for key, tensor in to_tensors(adapter).items()
        },
    )


def _table(rows: Sequence[TrafficRow], fetched: Mapping[str, Mapping[str, int]]) -> Table:
    told = (
        f"{model}: " + ", ".join(f"{name} {size / 1e3:,.1f}" for name, size in sizes.items())
        for model, sizes in fetched.items()
    )
    once = "Before the first round, KB of the bundle for a device with\n" + "\n".join(told)
    table = Table(title="Bytes of a round", title_justify="left", caption=once, caption_justify="left")
    table.add_column("model")
    for heading in ("rank", "precision", "down KB", "up KB", "messages KB"):
        table.add_column(heading, justify="right")
    for row in rows:
        sizes = (row.down_bytes, row.up_bytes, row.message_bytes)
        table.add_row(row.model, str(row.rank), row.precision, *(f"{size / 1e3:,.1f}" for size in sizes))
    return table
