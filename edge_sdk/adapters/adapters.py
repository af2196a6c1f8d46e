"""The adapters that a device keeps, for its app: which one is in use, and models that answer under it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from edge_sdk.adapters.classification import TextClassifier
from edge_sdk.adapters.files import AdapterFiles
from edge_sdk.adapters.generation import TextGenerator
from edge_sdk.adapters.index import AdapterIndex, AdapterKind, Comparison, StoredAdapter
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes import open_model, runtimes_with_files
from edge_sdk.runtimes.base import Factors, LogitsModel, ModelOpener
from edge_sdk.training.parametrisation import Parametrisation, TrainedNumbers
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle, open_bundle, verify_files
from hetlora.digest import sha256_of
from hetlora.errors import AdapterUnusable, InputError, NoAdapter, SettingsError, UnavailableError
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Offer, TrainingSettings
from hetlora.plan_adapter import frozen_from_bytes, sent_from_bytes, sent_tensors
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import factor_tensors

logger = logging.getLogger(__name__)
Put = Callable[[bytes], ObjectRef]


@dataclass(frozen=True, slots=True, eq=False)
class WholeAdapter:
    """All that a model stands under: an adapter, and the cores and frozen factors with it."""

    adapter: Adapter
    how: Parametrisation

    def factors(self) -> Factors:
        """The factors that the model stands under, as in training.

        Raises:
            SpecMismatch: cores or frozen factors are not of this adapter.
        """
        return TrainedNumbers(self.adapter, self.how).fed()


class Adapters:
    """What rounds and rollouts left on this device: the newest global adapter, the newest local one, the
    newest that was rolled out, the one in use, and the one before. Five at most are kept; older ones go.

        answer = client.adapters.classifier().classify("where is my parcel")

    Safe to use from any thread and process, also during a visit. A model that is open stays as it was opened,
    whatever is adopted meanwhile. Nothing here asks the service for anything.

    Args:
        folder: the device folder.
        threads: how many threads models may use; None leaves it to the runtime.
        files: the files in it, for a test.
        opener: opens models, for a test; else `edge_sdk.runtimes.open_model`.
    """

    def __init__(
        self,
        folder: DeviceFolder,
        *,
        threads: int | None = None,
        files: AdapterFiles | None = None,
        opener: ModelOpener = open_model,
    ) -> None:
        self._bundles = folder.bundles
        self._threads = threads
        self._files = files or AdapterFiles(folder.adapters)
        self._opener = opener
        self._verified: set[Path] = set()  # files of bundles that this process has hashed

    def index(self) -> AdapterIndex:
        """Everything that is known of all of them.

        Raises:
            UnavailableError: it cannot be read now.
        """
        with _told():
            return self._files.index()

    def current(self) -> StoredAdapter | None:
        """The adapter in use; None before the first round; errors as `index`."""
        return self.index().current

    def last_comparison(self) -> Comparison | None:
        """The last comparison; None before the first new adapter; errors as `index`."""
        return self.index().last_comparison

    def use(self, kind: AdapterKind) -> StoredAdapter:
        """Put the newest adapter of a kind in use, unasked, and have new ones of that kind adopted.

        Raises:
            SettingsError: there is no such kind.
            NoAdapter: this device keeps none.
            AdapterUnusable: its file or its bundle is damaged or gone; what is in use stays so.
            UnavailableError: the folder cannot be read or written now.
        """
        if kind not in get_args(AdapterKind):  # it would be taken for the local one
            raise SettingsError("kind of adapter", got=kind, expected=get_args(AdapterKind))
        return self._put_in_use(lambda index: index.using(kind))

    def roll_back(self) -> StoredAdapter:
        """Put the adapter in use that was before; the one in use now is not adopted again by itself.

        Raises:
            NoAdapter: there was none before.
            AdapterUnusable, UnavailableError: as in `use`.
        """
        return self._put_in_use(lambda index: index.rolled_back())

    def model(self) -> LogitsModel:
        """The bundle's model under the adapter in use; use it in one thread at a time.

        Raises:
            NoAdapter: this device took part in no round yet.
            AdapterUnusable, UnavailableError: as in `use`.
            DependencyMissing, BundleInvalid: see `edge_sdk.runtimes.open_model`.
        """
        return self._opened()[1]

    def classifier(self) -> TextClassifier:
        """A classifier of texts under the adapter in use; errors as `model`, and `TextClassifier`."""
        return TextClassifier(*self._opened())

    def generator(self) -> TextGenerator:
        """A generator of text under the adapter in use; errors as `model`, and `TextGenerator`."""
        return TextGenerator(*self._opened())

    def read(self, stored: StoredAdapter) -> tuple[Bundle, WholeAdapter]:
        """An adapter of the index, and its own bundle.

        Raises:
            AdapterUnusable: its file or its bundle is damaged or gone.
        """
        try:
            bundle = self._bundle(stored)
            spec = bundle.manifest.adapter
            sent = sent_from_bytes(self._files.read(stored.tensors), spec)
            frozen = None
            if stored.frozen is not None:
                frozen = frozen_from_bytes(self._files.read(stored.frozen), spec)
        except AdapterUnusable:
            raise
        except InputError as error:  # whole, and yet not of this bundle: no file of ours
            raise AdapterUnusable(f"the {stored.kind} adapter does not fit its bundle", got=error) from error
        return bundle, WholeAdapter(sent.adapter, Parametrisation(stored.adaptation, frozen, sent.cores))

    def keep_round(
        self,
        offer: Offer,
        sent: WholeAdapter,
        trained: WholeAdapter,
        *,
        training: TrainingSettings,
        micro_batch: int,
        variant: ObjectRef | None = None,
    ) -> None:
        """Keep what a round sent and what training made of it, both or neither; nothing is in use by that.

        `training` and `micro_batch` are as they were agreed, not as they were offered; without a `variant` it
        was the run's own bundle. A device that cannot
        keep adapters goes on without: its update is worth more.
        """
        try:
            with self._files.locked():
                try:
                    bundle, put = (variant or offer.bundle).sha256, self._files.put
                    entries = [
                        _stored(offer, bundle, "global", sent, training, micro_batch, put),
                        _stored(offer, bundle, "local", trained, training, micro_batch, put),
                    ]
                    self._files.change(lambda index: index.after_round(*entries))
                except OSError:
                    self._files.drop_others(self._files.index())  # the update needs the room
                    raise
        except OSError as error:
            logger.warning("run=%s event=adapters_not_kept error=%s", offer.run_id, error)

    def rolled_out(
        self, offer: Offer, bundle: str, sent: WholeAdapter, *, training: TrainingSettings, micro_batch: int
    ) -> StoredAdapter:
        """How a version that was rolled out is going to be known here; nothing is written yet."""
        return _stored(offer, bundle, "rollout", sent, training, micro_batch, _ref_of)

    def decide_rollout(self, comparison: Comparison, sent: WholeAdapter, *, takes_back: bool) -> bool:
        """Keep what became of a version that was rolled out, and its files if it is in use by that.

        False if another adapter was put in use meanwhile. Raises OSError where nothing can be written.
        """
        with self._files.locked():
            if comparison.outcome == "adopted":
                _put_files(sent, self._files.put)
            changed = self._files.change(lambda index: index.after_rollout(comparison, takes_back=takes_back))
        return changed is not None

    def decide(self, comparison: Comparison) -> bool:
        """Keep a comparison and do as it says; False if another adapter was put in use meanwhile."""
        return self._files.change(lambda index: index.decided(comparison)) is not None

    def begin_comparison(self) -> int:
        """Note that one begins; how many about the same adapter were cut off before it.

        Raises:
            OSError: it cannot be noted.
        """
        changed = self._files.change(lambda index: index.comparison_begun())
        return 0 if changed is None else changed.comparisons_cut_off - 1

    def forget_comparisons(self) -> None:
        """Note that what was compared is given up; errors as `begin_comparison`."""
        self._files.change(lambda index: index.comparisons_forgotten())

    def put_off_comparison(self) -> None:
        """Note that the one that was begun ended undecided; errors as `begin_comparison`."""
        self._files.change(lambda index: index.comparison_put_off())

    def _put_in_use(self, change: Callable[[AdapterIndex], AdapterIndex]) -> StoredAdapter:
        def checked(index: AdapterIndex) -> AdapterIndex:
            changed = change(index)
            self.read(_in_use(changed))
            return changed

        self._bundle(_in_use(change(self.index())))  # to hash a model takes long: nobody waits for that
        with self._held():
            self._files.change(checked)
            return _in_use(self.index())

    def _opened(self) -> tuple[Bundle, LogitsModel]:
        self._bundle(_in_use(self.index()))  # to hash a model takes long: nobody waits for that
        with self._held():  # or its files may go while they are read
            bundle, whole = self.read(_in_use(self.index()))
        return bundle, self._opener(bundle, whole.factors(), threads=self._threads)

    @contextmanager
    def _held(self) -> Iterator[None]:
        with _told(), self._files.locked():
            yield

    def _bundle(self, stored: StoredAdapter) -> Bundle:
        digest = stored.bundle
        try:
            bundle = open_bundle(self._bundles / digest, verify=False, digest=digest)
            self._verify(bundle)
        except InputError as error:
            raise AdapterUnusable(
                f"the bundle of the {stored.kind} adapter is not on this device, or no longer as it was",
                got=error,
                expected=f"bundle {digest[:12]}",
            ) from error
        return bundle

    def _verify(self, bundle: Bundle) -> None:
        """Look at what some runtime would open; where there is none, the files that are missing are told."""
        manifest = bundle.manifest
        names = set().union(*map(manifest.files_of, runtimes_with_files(bundle))) or manifest.files.keys()
        new = {bundle.path(name): name for name in names if bundle.path(name) not in self._verified}
        verify_files(bundle, new.values())
        self._verified |= new.keys()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError("the folder of adapters cannot be used now", got=error.strerror) from error


def _in_use(index: AdapterIndex) -> StoredAdapter:
    if index.current is None:
        raise NoAdapter("no adapter is in use on this device", expected="a round that it took part in")
    return index.current


def _stored(
    offer: Offer,
    bundle: str,
    kind: AdapterKind,
    whole: WholeAdapter,
    training: TrainingSettings,
    micro_batch: int,
    put: Put,
) -> StoredAdapter:
    tensors, frozen = _put_files(whole, put)
    return StoredAdapter(
        kind=kind,
        run_id=offer.run_id,
        round_index=offer.round_index,
        bundle=bundle,
        rank=whole.adapter.rank,
        training=training,
        micro_batch=micro_batch,
        adaptation=whole.how.adaptation,
        tensors=tensors,
        frozen=frozen,
    )


def _put_files(whole: WholeAdapter, put: Put) -> tuple[ObjectRef, ObjectRef | None]:
    how = whole.how
    tensors = put(tensors_to_bytes(sent_tensors(whole.adapter, how.cores)))
    return tensors, None if how.frozen is None else put(tensors_to_bytes(factor_tensors(how.frozen)))


def _ref_of(data: bytes) -> ObjectRef:
    return ObjectRef(sha256=sha256_of(data), size_bytes=len(data))
