"""What a plan sends, fetched, read and held against what this device agreed to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.transport.downloads import Downloads
from hetlora.adapter import Adapter, AdapterSpec
from hetlora.errors import BodyTooLarge, RankOutOfRange, SpecMismatch
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Plan
from hetlora.partial_tensors import max_partial_bytes
from hetlora.plan_adapter import frozen_from_bytes, max_frozen_bytes, sent_from_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """The adapter to begin with, and how it is trained."""

    received: Adapter
    how: Parametrisation


@dataclass(frozen=True, slots=True)
class Received:
    """The files that a plan names, as they came."""

    adapter: bytes
    frozen: bytes | None


def fetch_received(plan: Plan, spec: AdapterSpec, *, downloads: Downloads, folder: Path) -> Received:
    """Fetch the adapter of a plan, and the frozen one that it may have, through files in `folder`.

    Raises:
        BodyTooLarge: a file is larger than any that could be meant.
        HetloraError: see `Downloads.fetch`.
    """

    def fetched(ref: ObjectRef, name: str, limit: int) -> bytes:
        if ref.size_bytes > limit:
            raise BodyTooLarge(f"{name} is too large", got=ref.size_bytes, expected=f"up to {limit} bytes")
        path = folder / ref.sha256
        downloads.fetch(ref, path, name=name)
        data = path.read_bytes()
        path.unlink()
        return data

    adapter = fetched(plan.adapter, "global adapter", max_partial_bytes(spec))
    if plan.frozen is None:
        return Received(adapter, None)
    return Received(adapter, fetched(plan.frozen, "frozen adapter", max_frozen_bytes(spec)))


def read_assigned(plan: Plan, received: Received, spec: AdapterSpec, *, rank: int) -> Assigned:
    """What was received, read.

    Modules may have ranks of their own. All together the adapter has at most the numbers of one of `rank`,
    for which this device has planned.

    Raises:
        RankOutOfRange: the adapter is larger than one of `rank`.
        SpecMismatch: it is of another specification; or it has cores and none are trained, or the reverse.
        HetloraError: see `sent_from_bytes` and `frozen_from_bytes`.
    """
    sent = sent_from_bytes(received.adapter, spec)
    most = 4 * rank * spec.parameters_per_rank
    if sent.adapter.size_bytes > most:
        raise RankOutOfRange(
            "global adapter has more ranks than asked for",
            got=f"{sent.adapter.size_bytes} bytes, up to rank {sent.adapter.rank}",
            expected=f"up to the {most} bytes of rank {rank}",
        )
    if bool(sent.cores) != (plan.adaptation.trained == "core"):
        raise SpecMismatch(
            "cores of the global adapter", got=f"{len(sent.cores)} of them", expected=plan.adaptation.trained
        )
    frozen = None if received.frozen is None else frozen_from_bytes(received.frozen, spec)
    return Assigned(sent.adapter, Parametrisation(plan.adaptation, frozen, sent.cores))
