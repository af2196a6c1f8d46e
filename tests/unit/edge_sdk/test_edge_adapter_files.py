"""Adapters on disk: whatever stops a process, what is read next is as before a change or after it."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from adapter_rounds import Opener, b_of, fed_b, unreadable_index
from fake_bundle import adapter_of, bundle_on_disk
from fake_service import FakeService
from hypothesis import given, settings
from hypothesis import strategies as st
from killed import Killed, run_until_killed

from edge_sdk.adapters.adapters import Adapters, WholeAdapter
from edge_sdk.adapters.files import INCOMPLETE_NAME, INDEX_NAME, AdapterFiles
from edge_sdk.adapters.index import AdapterIndex
from edge_sdk.folder import DeviceFolder, open_folder
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.adapter import LoraFactors
from hetlora.errors import AdapterUnusable, NoAdapter, UnavailableError
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Adaptation, Offer


def device_with_a_bundle(root: Path) -> tuple[DeviceFolder, str]:
    folder = open_folder(root)
    made = bundle_on_disk(folder.bundles / "new")
    made.folder.rename(folder.bundles / made.digest)
    return folder, made.digest


def offer_of(bundle: str, index: int) -> Offer:
    offer = FakeService().offer
    assert offer is not None
    ref = offer.bundle.model_copy(update={"sha256": bundle})
    return offer.model_copy(update={"round_index": index, "bundle": ref})


def keep(adapters: Adapters, bundle: str, index: int) -> None:
    """A round that sends the number `index` and makes 1 more of it, beside frozen factors of its own."""
    how = Parametrisation(Adaptation(), dict(adapter_of(2, b=-1 - index).factors))
    offer = offer_of(bundle, index)
    adapters.keep_round(
        offer,
        WholeAdapter(adapter_of(2, b=index), how),
        WholeAdapter(adapter_of(3, b=index + 1), how),
        training=offer.training,
        micro_batch=2,
    )


def numbers(adapters: Adapters) -> dict[str, tuple[int, float, float]]:
    """Of each place the round, and the numbers that are read for it."""
    read = {}
    for place, stored in adapters.index().stored().items():
        whole = adapters.read(stored)[1]
        assert whole.how.frozen is not None
        frozen: LoraFactors = whole.how.frozen["query"]
        read[place] = (stored.round_index, b_of(whole.adapter), float(frozen.lora_B[0, 0]))
    return read


CHANGES: dict[str, Callable[[Adapters, str], object]] = {
    "keep": lambda adapters, bundle: keep(adapters, bundle, 2),
    "use": lambda adapters, bundle: adapters.use("local"),
    "roll_back": lambda adapters, bundle: adapters.roll_back(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_stop_between_any_two_steps_leaves_the_old_or_the_new(change: str, tmp_path: Path) -> None:
    outcomes, at, stopped = [], 0, True
    while stopped:
        folder, bundle = device_with_a_bundle(tmp_path / f"stopped-before-{at}")
        for index in (0, 1):
            keep(Adapters(folder), bundle, index)
            Adapters(folder).use("global")
        old, steps = numbers(Adapters(folder)), iter(range(at))

        def stop(step: str, left: object = steps) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise Killed(step)

        try:
            CHANGES[change](Adapters(folder, files=AdapterFiles(folder.adapters, before_step=stop)), bundle)
            stopped = False
        except Killed:
            pass
        after = Adapters(folder)
        outcomes.append(numbers(after))
        at += 1
        keep(after, bundle, 3)  # and it goes on from there, with nothing left over
        assert numbers(after)["newest_global"] == (3, 3.0, -4.0)
        named = {f"{digest}.safetensors" for digest in after.index().file_digests()}
        assert {path.name for path in folder.adapters.iterdir()} == {*named, INDEX_NAME, "lock"}
    new = outcomes[-1]
    assert new != old
    assert [outcome for outcome in outcomes if outcome not in (old, new)] == []
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == new)  # there is one step that counts
    assert len(outcomes) > 5


KILLED = """
import os, signal, sys
from pathlib import Path
from test_edge_adapter_files import keep
from edge_sdk.adapters.files import AdapterFiles
from edge_sdk.adapters.adapters import Adapters
from edge_sdk.folder import DeviceFolder

folder, steps = DeviceFolder(Path(sys.argv[1])), iter(range(int(sys.argv[3])))

def kill(step):
    if next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)

keep(Adapters(folder, files=AdapterFiles(folder.adapters, before_step=kill)), sys.argv[2], 1)
"""


@pytest.mark.parametrize("steps", [3, 17])
def test_killed_process_leaves_the_old_and_no_lock(steps: int, tmp_path: Path) -> None:
    folder, bundle = device_with_a_bundle(tmp_path)
    keep(Adapters(folder), bundle, 0)
    Adapters(folder).use("global")
    old = numbers(Adapters(folder))
    run_until_killed(KILLED, tmp_path, bundle, steps)
    assert numbers(Adapters(folder)) == old
    assert (folder.adapters / INCOMPLETE_NAME).exists()
    keep(Adapters(folder), bundle, 1)
    assert numbers(Adapters(folder))["newest_local"] == (1, 2.0, -2.0)
    assert not (folder.adapters / INCOMPLETE_NAME).exists()


def test_files_of_a_model_that_is_being_opened_stay_until_they_are_read(tmp_path: Path) -> None:
    folder, bundle = device_with_a_bundle(tmp_path)
    keep(Adapters(folder), bundle, 0)
    Adapters(folder).use("global")

    def rounds_go_on() -> None:
        for index in (1, 2, 3):
            keep(Adapters(folder), bundle, index)
            Adapters(folder).use("global")

    others = threading.Thread(target=rounds_go_on)

    class Interrupted(AdapterFiles):
        def read(self, ref: ObjectRef) -> bytes:
            if not others.ident:
                others.start()
                others.join(0.5)  # time enough for them, were they not to wait for this
            return super().read(ref)

    opener = Opener()
    Adapters(folder, files=Interrupted(folder.adapters), opener=opener).model()
    others.join()
    assert [fed_b(factors) for _, factors in opener.opened if factors is not None] == [0.0]
    assert numbers(Adapters(folder))["current"] == (3, 3.0, -4.0)


FOREIGN = [b"{}", b"[]", b"null", b'{"schema_version": 2}', b'{"schema_version": true, "following": "local"}']


@given(data=st.binary(max_size=200) | st.sampled_from(FOREIGN))
@settings(max_examples=60)
def test_index_that_is_torn_or_foreign_is_as_good_as_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder, bundle = device_with_a_bundle(tmp_path_factory.mktemp("law"))
    (folder.adapters / INDEX_NAME).write_bytes(data)
    adapters = Adapters(folder)
    assert adapters.index() == AdapterIndex()
    with pytest.raises(NoAdapter):
        adapters.use("global")
    keep(adapters, bundle, 1)
    adapters.use("global")
    assert numbers(adapters)["current"] == (1, 1.0, -2.0)


@given(cut=st.integers(0, 400), bits=st.integers(1, 255))
@settings(max_examples=60)
def test_damaged_file_is_told_and_the_round_that_comes_next_is_none_the_worse(
    tmp_path_factory: pytest.TempPathFactory, cut: int, bits: int
) -> None:
    folder, bundle = device_with_a_bundle(tmp_path_factory.mktemp("law"))
    adapters = Adapters(folder)
    keep(adapters, bundle, 1)
    in_use = adapters.use("global")
    path = folder.adapters / f"{in_use.tensors.sha256}.safetensors"
    data = bytearray(path.read_bytes())
    place = cut % len(data)
    data[place] ^= bits
    path.write_bytes(bytes(data[: place + 1] if cut % 2 else data))
    with pytest.raises(AdapterUnusable, match="damaged"):
        adapters.read(in_use)
    keep(adapters, bundle, 1)  # the same bytes: written anew, as those there are not they
    assert numbers(adapters)["current"] == (1, 1.0, -2.0)


def test_whole_file_of_another_bundle_is_told(tmp_path: Path) -> None:
    folder, bundle = device_with_a_bundle(tmp_path)
    files = AdapterFiles(folder.adapters)
    adapters = Adapters(folder, files=files)
    keep(adapters, bundle, 1)
    in_use = adapters.use("global")
    with files.locked():
        foreign = files.put(b"whole, and no adapter")
    stored = in_use.model_copy(update={"tensors": foreign})
    with pytest.raises(AdapterUnusable, match="does not fit its bundle"):
        adapters.read(stored)


def test_files_of_others_are_let_be(tmp_path: Path) -> None:
    folder, bundle = device_with_a_bundle(tmp_path)
    theirs = folder.adapters / "notes.txt"
    theirs.write_text("mine")
    (folder.adapters / f"{'0' * 64}.safetensors").write_bytes(b"of a process that was killed")
    keep(Adapters(folder), bundle, 1)
    assert theirs.read_text() == "mine"
    assert len(list(folder.adapters.glob("*.safetensors"))) == 3


def test_index_names_what_it_keeps_in_words_that_people_can_read(tmp_path: Path) -> None:
    folder, bundle = device_with_a_bundle(tmp_path)
    keep(Adapters(folder), bundle, 1)
    index = json.loads((folder.adapters / INDEX_NAME).read_text())
    assert index["newest_local"]["run_id"] == "run-1"
    assert index["current"] is None


def test_index_that_cannot_be_read_now_is_no_empty_one(tmp_path: Path) -> None:
    folder, bundle = device_with_a_bundle(tmp_path)
    adapters = Adapters(folder)
    for index in (0, 1):
        keep(adapters, bundle, index)
        adapters.use("local")
    before = numbers(adapters)
    with unreadable_index(folder):
        keep(adapters, bundle, 2)
        for read in (
            adapters.index,
            adapters.current,
            adapters.last_comparison,
            adapters.roll_back,
            adapters.model,
        ):
            with pytest.raises(UnavailableError, match="the folder of adapters cannot be used now"):
                read()
    assert numbers(adapters) == before
    assert adapters.index().following == "local"
    adapters.roll_back()
    assert numbers(adapters)["current"] == (0, 1.0, -1.0)


def test_full_disk_leaves_room_and_what_was_in_use(tmp_path: Path) -> None:
    folder, bundle = device_with_a_bundle(tmp_path)
    keep(Adapters(folder), bundle, 0)
    Adapters(folder).use("global")
    old, before = numbers(Adapters(folder)), set(folder.adapters.iterdir())

    def full(step: str) -> None:
        if step == f"write {INDEX_NAME}":
            raise OSError(errno.ENOSPC, "no space left")

    adapters = Adapters(folder, files=AdapterFiles(folder.adapters, before_step=full))
    keep(adapters, bundle, 1)
    assert numbers(adapters) == old
    assert set(folder.adapters.iterdir()) == before
    with pytest.raises(UnavailableError, match="no space left"):
        adapters.use("local")
    assert numbers(adapters) == old
