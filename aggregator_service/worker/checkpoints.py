"""Checkpoints of a round's reduction: objects from which another process goes on with it (ADR 0006).

A checkpoint is the carry of the tree after some leaves. Its row says, by a digest, what it follows from, and
it is used where that is the very same. It only saves work: one that is lost, torn or of an older hetlora is
as good as none, and one that cannot be written holds nobody up.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

import hetlora
from aggregator_service.aggregation.packing import is_bounded
from aggregator_service.aggregation.progress import BEGINNING, Reached
from aggregator_service.aggregation.rule import Rule, UpdateRef
from aggregator_service.aggregation.tree import BATCH_BYTES, BATCH_SIZE, FAN_IN, LEAF_SIZE
from aggregator_service.artifacts.objects import put_tensors
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_run_of_round
from aggregator_service.storage.passing import log_fault
from aggregator_service.storage.tables import CheckpointRow, RoundRow
from aggregator_service.worker.reached import reached_from_bytes, reached_tensors
from hetlora.adapter import AdapterSpec
from hetlora.errors import HetloraError
from hetlora.messages.management import RunSettings
from hetlora.states import RoundState

log = logging.getLogger(__name__)

# What is done in less time is done again sooner than it is worth a file.
FIRST_SECONDS: Final = 1.0
# The time from one checkpoint to the next, over what the one took to write: it costs some 3 % at most.
TIMES_ITS_COST: Final = 30
MOST_OF_A_ROUND: Final = 16


def inputs_of(settings: RunSettings, base_version: str, cohort: Sequence[UpdateRef]) -> str:
    """The digest of all that a partial follows from beside its own updates.

    Args:
        cohort: updates that the treatment of each of them depends on, in their order.
    """
    shape = (hetlora.__version__, LEAF_SIZE, BATCH_SIZE, BATCH_BYTES, FAN_IN)
    told = [*shape, settings.model_dump(mode="json"), base_version, [repr(ref) for ref in cohort]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of one round, as `Progress`; `inputs` is its `inputs_of`, `seconds` tells the time."""

    service: Service
    round_id: str
    inputs: str
    seconds: Callable[[], float] = time.monotonic
    _refs: Sequence[UpdateRef] = ()
    _bounded: bool = False
    _next_leaf: int = 0
    _due_at: float = 0.0

    def found(self, rule: Rule[Any], refs: Sequence[UpdateRef]) -> Reached[Any]:
        self._refs, empty = sorted(refs), rule.init()
        self._bounded = is_bounded(empty)
        reached = self._newest(rule.spec, empty) if self._bounded else BEGINNING
        self._pace(reached.leaf_count, FIRST_SECONDS)
        return reached

    def due(self, leaf_count: int) -> bool:
        return self._bounded and leaf_count >= self._next_leaf and self.seconds() >= self._due_at

    def keep(self, reached: Reached[Any]) -> None:
        started = self.seconds()
        try:
            self._keep(reached)
        except Exception as error:  # such as a full disk: at worst another process begins anew
            log_fault(log, error, "round=%s checkpoint=not_kept", self.round_id)
        self._pace(reached.leaf_count, TIMES_ITS_COST * (self.seconds() - started))

    def _pace(self, leaf_count: int, seconds: float) -> None:
        of_a_round = -(-len(self._refs) // LEAF_SIZE)
        self._next_leaf = leaf_count + -(-of_a_round // MOST_OF_A_ROUND)
        self._due_at = self.seconds() + seconds

    def _newest(self, spec: AdapterSpec, empty: Any) -> Reached[Any]:
        with self.service.database.read() as session:
            of_round = select(CheckpointRow).where(CheckpointRow.round_id == self.round_id)
            rows = session.scalars(of_round.order_by(CheckpointRow.leaf_count.desc())).all()
        inputs = self._inputs_at([row.leaf_count for row in rows])
        for row in rows:
            if row.inputs_sha256 != inputs[row.leaf_count]:
                continue
            try:
                reached = reached_from_bytes(self.service.objects.read(row.sha256), spec, empty)
            except HetloraError:
                log.exception("round=%s checkpoint=unreadable leaves=%d", self.round_id, row.leaf_count)
                continue
            log.info("round=%s goes_on=true updates_done=%d", self.round_id, len(reached.raw_weights))
            return reached
        return BEGINNING

    def _keep(self, reached: Reached[Any]) -> None:
        sha256 = put_tensors(self.service, reached_tensors(reached)).sha256
        row = CheckpointRow(
            round_id=self.round_id,
            leaf_count=reached.leaf_count,
            inputs_sha256=self._inputs_at([reached.leaf_count])[reached.leaf_count],
            sha256=sha256,
        )
        with self.service.database.write() as session:
            lock_run_of_round(session, self.round_id)
            # Rows go with the end of a round, which it may have come to meanwhile.
            if session.get_one(RoundRow, self.round_id).state is RoundState.AGGREGATING:
                session.merge(row)

    def _inputs_at(self, leaf_counts: Iterable[int]) -> dict[int, str]:
        """The digests of what the first leaves follow from, so many of them."""
        running, done, found = hashlib.sha256(self.inputs.encode()), 0, {}
        for leaf_count in sorted(leaf_counts):
            for ref in self._refs[done * LEAF_SIZE : leaf_count * LEAF_SIZE]:
                running.update(f"{ref!r}\n".encode())
            done, found[leaf_count] = leaf_count, running.hexdigest()
        return found
