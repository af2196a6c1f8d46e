"""What an app's log and callbacks are told at their most talkative: nothing of examples, keys or tokens."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store_files import bytes_in

from edge_sdk import Adoption, EdgeClient, Event, StepDone, Visit
from edge_sdk.device_database import DeviceDatabase
from edge_sdk.folder import DeviceFolder
from edge_sdk.identity.identity import key_to_pem
from edge_sdk.identity.identity_store import IdentityStore
from hetlora.bundle import Bundle
from hetlora.errors import ServiceFailed
from hetlora.messages.device import TrainingSettings
from hetlora.testing import CUT, FakeService

TEXT, LABEL, KEY = "marmalade for zanzibar", "quagga", "okapi-4711"
TOKEN, STORE_KEY = "token-of-the-operator", bytes(range(100, 132))
TRAINING = TrainingSettings(steps=2, batch_size=2, max_tokens=16)


@pytest.fixture(scope="module")
def bundle(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from export.bundle_writer import export_bundle

    return export_bundle(
        str(tiny_model_folder),
        tmp_path_factory.mktemp("bundles") / "marked",
        labels=[LABEL, "other"],
        targets=["query"],
        max_rank=2,
        max_tokens=16,
    )


@pytest.fixture
def service(bundle: Bundle) -> Iterator[FakeService]:
    with FakeService(bundle, training=TRAINING, enrolment_token=TOKEN) as service:
        service.retry_after_seconds = 0.01
        yield service


class Told:
    """All that was told: events, visits, and the records of every logger, with their arguments and causes."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self._log, self._others = log, list[str]()

    def __call__(self, event: Event | Visit) -> None:
        self._others.append(repr(event))

    def text(self) -> str:
        whole = logging.Formatter("%(name)s %(message)s %(args)r")
        return "\n".join([*map(whole.format, self._log.records), *self._others])


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    with caplog.at_level(logging.DEBUG):
        yield Told(caplog)


@pytest.fixture
def visit(service: FakeService, tmp_path: Path, told: Told) -> Callable[..., Visit]:
    """Makes one visit of a device whose app keeps marked examples, and tells all of it."""

    def once(on_event: Callable[[Event], None] = told, label: str = LABEL) -> Visit:
        with EdgeClient(
            service.url,
            "weather",
            tmp_path / "device",
            enrolment_token=TOKEN,
            encryption_key=STORE_KEY,
            adoption=Adoption("if_not_worse"),
            on_event=on_event,
        ) as client:
            client.examples.put(TEXT, label, key=KEY)
            client.examples.put(f"more {TEXT}", "other")
            client.held_out.put(f"less {TEXT}", LABEL)
            return client.run_once()

    return once


def secrets(folder: Path) -> set[str]:
    """In the forms in which they might be told."""
    with closing(DeviceDatabase(DeviceFolder(folder).database)) as database:
        key = IdentityStore(database).identity().key
    private, pem = key.private_bytes_raw(), key_to_pem(key)
    keys = (STORE_KEY, private)
    written = {form for own in keys for form in (own.hex(), base64.b64encode(own).decode(), repr(own)[2:-1])}
    return {TEXT, "zanzibar", LABEL, KEY, TOKEN, pem.decode().splitlines()[1], *written}


def leaked(text: str, folder: Path) -> list[str]:
    return sorted(secret for secret in secrets(folder) if secret in text)


def test_rounds_tell_nothing_of_what_they_trained_on(
    service: FakeService, visit: Callable[..., Visit], told: Told, bundle: Bundle, tmp_path: Path
) -> None:
    service.script = [None, ServiceFailed("it broke"), CUT]
    for kind in ("train", "evaluate", "train"):
        service.offer_work(bundle, TRAINING, kind=kind)
        done = visit()
        assert done.outcome == "accepted", done
        told(done)
    text = told.text()
    for expected in ("edge_sdk.transport", "StepDone", "Evaluated", "Adopted", "event=enrolled", "httpcore"):
        assert expected in text
    assert leaked(text, tmp_path / "device") == []


def test_round_leaves_nothing_in_any_file_that_an_encrypted_store_would_hide(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    assert visit().outcome == "accepted"
    lying = bytes_in(tmp_path / "device")
    assert LABEL.encode() in lying  # in the bundle, which names its labels
    hidden = (TEXT, "zanzibar", KEY, TOKEN)
    assert [secret for secret in hidden if secret.encode() in lying] == []
    assert STORE_KEY not in lying


def test_label_that_a_bundle_does_not_know_is_told_to_the_app_alone(
    visit: Callable[..., Visit], service: FakeService, told: Told, tmp_path: Path
) -> None:
    failed = visit(label="tapir")
    assert (failed.outcome, failed.code) == ("failed", "data_unreadable")
    assert "tapir" in failed.reason
    assert "code=data_unreadable" in told.text()
    assert "tapir" not in told.text() + repr(service.failures)
    assert leaked(told.text(), tmp_path / "device") == []


def test_fault_of_the_app_that_quotes_an_example_is_told_without_it(
    visit: Callable[..., Visit], service: FakeService, told: Told, tmp_path: Path
) -> None:
    def quotes(event: Event) -> None:
        if isinstance(event, StepDone):
            try:
                raise KeyError(TEXT)
            except KeyError as error:
                raise RuntimeError(f"no such key: {KEY}") from error

    failed = visit(on_event=quotes)
    assert (failed.outcome, failed.code) == ("failed", "internal_error")
    assert "RuntimeError" in told.text()
    assert "test_edge_quiet_logs.py" in told.text()  # where it was raised
    assert leaked(told.text() + repr(service.failures), tmp_path / "device") == []
