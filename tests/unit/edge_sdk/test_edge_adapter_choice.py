"""Which adapter is in use: the newest of the kind that the app chose, or one before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from adapter_rounds import Opener, adapter_files, b_in_use, fed_b, offer_round
from fake_service import FakeService

from edge_sdk.adapters.adapters import Adapters
from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, Event
from edge_sdk.folder import DeviceFolder
from hetlora.errors import NoAdapter, SettingsError

MakeClient = Callable[..., EdgeClient]


def test_after_a_round_the_global_adapter_is_in_use_and_the_local_one_can_be(
    service: FakeService, make_client: MakeClient
) -> None:
    events: list[Event] = []
    client = make_client(on_event=events.append)
    client.run_once()
    current = client.adapters.current()
    assert current is not None
    assert (current.kind, current.run_id, current.round_index, current.rank) == ("global", "run-1", 0, 4)
    assert (current.loss, current.accuracy, current.bundle) == (None, None, service.bundle.sha256)
    assert b_in_use(client.adapters) == 0.25
    assert client.adapters.use("local").kind == "local"
    assert b_in_use(client.adapters) == 0.90625
    [adopted] = [event for event in events if isinstance(event, Adopted)]
    assert adopted.comparison == client.adapters.last_comparison()
    assert adopted.comparison.reason == "every new adapter is, and nothing was compared"


def test_new_adapters_of_the_kind_in_use_are_adopted(service: FakeService, make_client: MakeClient) -> None:
    client = make_client()
    client.run_once()
    client.adapters.use("local")
    offer_round(service, 1, b=0.5)
    client.run_once()
    assert b_in_use(client.adapters) == 0.9375
    client.adapters.use("global")
    offer_round(service, 2, b=0.75)
    client.run_once()
    assert b_in_use(client.adapters) == 0.75


def test_roll_back_goes_one_back_and_the_next_round_is_adopted_again(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    offer_round(service, 1, b=0.5)
    client.run_once()
    assert client.adapters.roll_back().round_index == 0
    assert b_in_use(client.adapters) == 0.25
    with pytest.raises(NoAdapter, match="roll back"):
        client.adapters.roll_back()
    assert client.adapters.use("global").round_index == 1  # and forth
    client.adapters.roll_back()
    offer_round(service, 2, b=0.75)
    client.run_once()
    assert b_in_use(client.adapters) == 0.75


def test_roll_back_of_a_choice_of_kind_takes_the_kind_back(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    client.adapters.use("local")
    client.adapters.roll_back()
    offer_round(service, 1, b=0.5)
    client.run_once()
    assert b_in_use(client.adapters) == 0.5


def test_kind_that_there_is_not_is_refused_and_no_adapter_is_lost(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    before, files = client.adapters.index(), adapter_files(folder)
    miswritten: Any = "Global"
    with pytest.raises(SettingsError, match="kind of adapter; got Global"):
        client.adapters.use(miswritten)
    assert client.adapters.index() == before
    offer_round(service, 1, b=0.5)
    client.run_once()
    assert files & adapter_files(folder)
    assert b_in_use(client.adapters) == 0.5


def test_app_reads_and_chooses_in_other_threads_while_rounds_go_on(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    stop, seen, faults = threading.Event(), set(), []

    def answer() -> None:
        opener = Opener()
        own = Adapters(folder, opener=opener)
        while not stop.is_set():
            try:
                own.use("local")
                own.model()
                own.use("global")
                own.classifier().classify("snow")
            except Exception as error:
                faults.append(error)
                return
        seen.update(fed_b(factors) for _, factors in opener.opened if factors is not None)

    threads = [threading.Thread(target=answer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for index in range(1, 9):
        offer_round(service, index, b=index / 16)
        assert client.run_once().outcome == "accepted"
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    wholes = [0.25, *(index / 16 for index in range(1, 9))]
    assert seen <= {*wholes, *(1 - (1 - b) / 8 for b in wholes)}
    assert len(adapter_files(folder)) <= 4
