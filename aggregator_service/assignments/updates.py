"""Updates on their way in: admitted before their body is read, validated before they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy import select

from aggregator_service.aggregation.rule import PLAIN
from aggregator_service.artifacts.bundles import read_spec
from aggregator_service.assignments.assignments import lock_assignment, own_assignment, refuse_state
from aggregator_service.assignments.masking import check_may_upload
from aggregator_service.assignments.validation import validate_update
from aggregator_service.service import Service
from aggregator_service.storage.blobs import Blobs, reading_own
from aggregator_service.storage.incoming import IncomingBlob
from aggregator_service.storage.locks import lock_run_of_round
from aggregator_service.storage.tables import AssignmentRow, RunRow
from aggregator_service.storage.transitions import move
from hetlora.adapter import AdapterSpec
from hetlora.errors import HetloraError, UnavailableError
from hetlora.lazy_adapter import LazyAdapter
from hetlora.masking.vector import size_of
from hetlora.masking.wire import max_masked_bytes, read_masked
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Adaptation
from hetlora.partial_tensors import max_partial_bytes
from hetlora.plan_adapter import open_sent
from hetlora.sent_parts import sends_whole_ranks
from hetlora.states import STARTED_ASSIGNMENT, AssignmentState
from hetlora.tensors import max_adapter_bytes


@dataclass(frozen=True, slots=True)
class UpdateTerms:
    """What an update must be to be kept."""

    device_id: str
    assignment_id: str
    spec: AdapterSpec
    min_rank: int
    one_rank: bool
    plan: tuple[int, str]  # its rank, and the digest of what was sent
    adaptation: Adaptation
    max_bytes: int
    over: bool  # whether the assignment is, and this is the update that it had
    round_id: str  # of the offer, whose folder has the update
    folder: Blobs
    masked_size: int | None  # how many numbers a masked vector has; None where it is no such


def terms_of(service: Service, device_id: str, assignment_id: str, sha256: str) -> UpdateTerms:
    """What an update of this digest must be to be kept, told before a byte of its body is read.

    Raises:
        NotFound: no such assignment of the device.
        StateConflict: not started, or over; an update that is in already may be repeated.
    """
    with service.database.read() as session:
        assignment = own_assignment(session, device_id, assignment_id)
        if assignment.state not in STARTED_ASSIGNMENT and assignment.update_sha256 != sha256:
            raise refuse_state(assignment, "a started assignment")
        run = session.get_one(RunRow, assignment.run_id)
        if run.settings.secure_aggregation is not None and assignment.state in STARTED_ASSIGNMENT:
            check_may_upload(session, assignment)
    spec, adaptation = read_spec(service, run.bundle), assignment.adaptation or PLAIN
    masked_size = None
    if run.settings.secure_aggregation is not None:
        masked_size = size_of(spec, run.settings.max_rank)
        most_bytes = max_masked_bytes(masked_size)
    else:
        most_bytes = max_partial_bytes(spec) if _has_more_keys(adaptation) else max_adapter_bytes(spec)
    return UpdateTerms(
        device_id=device_id,
        assignment_id=assignment_id,
        spec=spec,
        min_rank=run.settings.min_rank,
        one_rank=run.settings.training.prune_by == "model",
        plan=_plan(assignment),
        adaptation=adaptation,
        max_bytes=min(service.settings.max_update_bytes, most_bytes),
        over=assignment.state not in STARTED_ASSIGNMENT,
        round_id=assignment.offered_in,
        folder=service.updates(assignment.offered_in),
        masked_size=masked_size,
    )


def _has_more_keys(adaptation: Adaptation) -> bool:
    """Whether positions, ranks or scales stand beside the numbers."""
    return not sends_whole_ranks(adaptation) or adaptation.upload_precision == "int8"


def keep_update(service: Service, terms: UpdateTerms, blob: IncomingBlob) -> ObjectRef:
    """Validate received bytes, keep them in place of what the assignment brought before, and record them.

    Raises:
        MalformedTensors, SpecMismatch, NonFiniteValues, RankOutOfRange: see `validate_update`.
        ServiceFailed: see `reading_own`.
        StateConflict: the assignment ended, or was started at another rank, while the update was on its way.
        UnavailableError: the same bytes were dropped for another assignment at this very moment.
    """
    if terms.over:  # its bytes may have been dropped since, and stay so
        return ObjectRef(sha256=blob.sha256, size_bytes=blob.size_bytes)
    rank = _validated_rank(service, terms, blob)
    ref = terms.folder.keep(blob)  # before the run is locked: a store may take its time
    try:
        replaced = _record(service, terms, ref, rank)
    except HetloraError:
        _drop_unused(service, terms, ref.sha256)
        raise
    service.metrics.update_bytes.observe(ref.size_bytes)
    if replaced is not None and replaced != ref.sha256:
        _drop_unused(service, terms, replaced)
    return ref


def _validated_rank(service: Service, terms: UpdateTerms, blob: IncomingBlob) -> int:
    """The rank of an update that is what it must be; of a masked one, which hides it, that of its plan."""
    if terms.masked_size is not None:
        with blob.reopened() as file:
            read_masked(file, terms.masked_size)
        return terms.plan[0]
    with _sent(service, terms) as sent, blob.reopened() as file:
        update = validate_update(
            file, sent, terms.adaptation, min_rank=terms.min_rank, one_rank=terms.one_rank
        )
    return update.rank


def _record(service: Service, terms: UpdateTerms, ref: ObjectRef, rank: int) -> str | None:
    """Make kept bytes the update of an assignment; the digest of the one that they replace, if any."""
    now = service.clock()
    with service.database.write() as session:
        assignment, _ = lock_assignment(session, terms.device_id, terms.assignment_id, now)
        if assignment.state not in STARTED_ASSIGNMENT:
            if assignment.update_sha256 == ref.sha256:
                return None
            raise refuse_state(assignment, "a started assignment")
        if _plan(assignment) != terms.plan:
            raise refuse_state(assignment, f"an update of the plan at rank {assignment.rank}")
        # Where nobody named them yet, they may have been dropped: under this lock, as they can be no more.
        if terms.folder.size_bytes(ref.sha256) is None:
            raise UnavailableError(
                "the update was dropped as it came in", got=ref.sha256, expected="it again"
            )
        replaced = assignment.update_sha256
        assignment.update_sha256, assignment.update_bytes = ref.sha256, ref.size_bytes
        assignment.updated_rank = rank
        # A device that had the adapter of its plan already did not fetch it.
        if assignment.state is AssignmentState.DOWNLOADING:
            move(session, assignment, AssignmentState.TRAINING, "adapter at hand", now)
        if assignment.state is AssignmentState.TRAINING:
            move(session, assignment, AssignmentState.UPLOADING, "update received", now)
    return replaced


@contextmanager
def _sent(service: Service, terms: UpdateTerms) -> Iterator[LazyAdapter]:
    with ExitStack() as opened:
        with reading_own("an adapter that was sent"):
            file = opened.enter_context(service.objects.opened(terms.plan[1]))
            sent = open_sent(file, terms.spec)
        yield sent


def _plan(assignment: AssignmentRow) -> tuple[int, str]:
    assert assignment.rank is not None
    assert assignment.adapter_sha256 is not None
    return assignment.rank, assignment.adapter_sha256


def _drop_unused(service: Service, terms: UpdateTerms, sha256: str) -> None:
    """Delete an update that no assignment has: a device that goes on replacing its own could fill the disk.

    After the transaction that left it unused: a crash between leaves a file that nobody names, never a name
    without its file.
    """
    of_these_bytes = select(AssignmentRow.id).where(
        AssignmentRow.offered_in == terms.round_id, AssignmentRow.update_sha256 == sha256
    )
    with service.database.write() as session:
        lock_run_of_round(session, terms.round_id)
        if session.scalar(of_these_bytes.limit(1)) is None:
            terms.folder.remove(sha256)
