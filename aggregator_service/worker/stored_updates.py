"""The updates of a round, read from its folder: what engines and their workers load."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.rule import PlanKey, Update, UpdateRef
from aggregator_service.aggregation.stacks import StackedAdapter, stacked
from aggregator_service.aggregation.staleness import staleness_weight
from aggregator_service.storage.blobs import Blobs, reading_own
from hetlora.adapter import Adapter
from hetlora.errors import HetloraError, UnavailableError
from hetlora.messages.device import Adaptation
from hetlora.partial import expand, with_cores
from hetlora.plan_adapter import open_sent, sent_from_bytes
from hetlora.sent_parts import is_plain

# Of what devices were sent, in memory: more than one, if they fit. A round has few handouts, one for each
# rank; where each device has its own, none comes twice.
KNOWN_BYTES: Final = 2**27


class UnreadableUpdate(Exception):
    """A stored update that is lost, or is not what it was when it came."""

    def __init__(self, sha256: str) -> None:
        super().__init__(sha256)
        self.sha256 = sha256


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """What devices were sent, as far as it is needed: as a part of updates, and to compare them with."""

    adapter: Adapter | None
    stacked: StackedAdapter | None

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return sum(
            (
                0 if self.adapter is None else self.adapter.size_bytes,
                0 if self.stacked is None else self.stacked.values.nbytes,
            )
        )


@dataclass(slots=True)
class StoredUpdates:
    """Reads updates, and what their devices were sent; travels to other processes as a few paths.

    `adaptations` are by `UpdateRef.plan_key`. `elsewhere` has, by digest, the folders of updates that are not
    in `updates`: those that devices were asked for in an earlier round. What devices were sent is read where
    updates are `compared` with it, or are a part of it; of the others `sent_rank` hashes the file and reads
    its header alone.
    """

    updates: Blobs
    objects: Blobs
    reader: UpdateReader
    adaptations: Mapping[PlanKey, Adaptation]
    compared: bool
    elsewhere: Mapping[str, Blobs] = field(default_factory=dict)
    _known: OrderedDict[str, Received] = field(default_factory=OrderedDict)

    def __reduce__(self) -> tuple[Any, ...]:
        own = self.updates, self.objects, self.reader, self.adaptations, self.compared, self.elsewhere
        return StoredUpdates, own

    def load(self, ref: UpdateRef) -> Update:
        """The update of a ref at full width, with what its device was sent where they are compared.

        Raises:
            UnreadableUpdate: see there.
            ServiceFailed: what was sent cannot be read, see `reading_own`.
            UnavailableError: the store does not answer now.
        """
        adaptation = self.adaptations[ref.plan_key]
        part = not is_plain(adaptation)
        received = self._received(ref.received_sha256, part) if self.compared or part else None
        try:
            adapter = self._read(ref.sha256, adaptation, received)
        except UnavailableError:  # the update may be well
            raise
        except HetloraError as error:
            raise UnreadableUpdate(ref.sha256) from error
        return Update(
            adapter,
            ref.example_count,
            None if received is None else received.stacked,
            ref.received_sha256,
            adaptation.ranks,
            staleness_weight(ref.staleness),
        )

    def sent_rank(self, sha256: str) -> int:
        """The largest rank of any module of what was sent.

        Raises:
            ServiceFailed: see `reading_own`.
        """
        with reading_own("an adapter that was sent"), self.objects.opened(sha256) as file:
            return open_sent(file, self.reader.spec).rank

    def _read(self, sha256: str, adaptation: Adaptation, received: Received | None) -> StackedAdapter:
        data = self.elsewhere.get(sha256, self.updates).read(sha256)
        if received is None or received.adapter is None:
            return self.reader.read(data)
        return stacked(expand(data, self.reader.spec, adaptation, received.adapter))

    def _received(self, sha256: str, part: bool) -> Received:
        known = self._known.get(sha256)
        if known is None:
            with reading_own("an adapter that was sent"):
                sent = sent_from_bytes(self.objects.read(sha256), self.reader.spec)
            whole = stacked(with_cores(sent.adapter, sent.cores)) if self.compared else None
            known = self._known[sha256] = Received(sent.adapter if part else None, whole)
            while len(self._known) > 1 and sum(own.size_bytes for own in self._known.values()) > KNOWN_BYTES:
                self._known.popitem(last=False)
        self._known.move_to_end(sha256)
        return known
