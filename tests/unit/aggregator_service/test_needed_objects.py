"""A store that lacks what runs need, as after a restore of the database alone."""

from __future__ import annotations

import pytest
from service_verbs import started_run
from sqlalchemy import select

from aggregator_service.artifacts.bundles import read_manifest
from aggregator_service.needed_objects import check_needed_objects
from aggregator_service.rounds.runs import change_run
from aggregator_service.service import Service
from aggregator_service.storage.tables import AdapterVersionRow
from hetlora.errors import UnavailableError


def missing(service: Service) -> str:
    with pytest.raises(UnavailableError, match="objects that runs need are missing or damaged") as told:
        check_needed_objects(service.settings)
    return str(told.value.got)


def test_every_object_of_a_run_is_missed(service: Service, bundle: str) -> None:
    assert check_needed_objects(service.settings) == 0
    started_run(service, bundle)
    assert check_needed_objects(service.settings) == 1
    with service.database.read() as session:
        adapter = session.scalars(select(AdapterVersionRow.sha256)).one()
    files = [entry.sha256 for entry in read_manifest(service, bundle).files.values()]
    for sha256 in (bundle, adapter, *files):
        file = service.objects.path(sha256)
        whole = file.read_bytes()
        file.write_bytes(whole[:-1])
        missing(service)
        file.unlink()
        missing(service)
        file.write_bytes(whole)
        check_needed_objects(service.settings)
    for sha256, what in ((bundle, "manifest of the bundle"), (adapter, "adapter ")):
        file = service.objects.path(sha256)
        whole = file.read_bytes()
        file.write_bytes(bytes(len(whole)))  # of the right size
        assert missing(service).startswith(what)
        file.write_bytes(whole)


def test_store_of_a_restore_without_objects_is_told_in_one_line(service: Service, bundle: str) -> None:
    started_run(service, bundle)
    service.objects.drop()
    told = missing(service)
    assert told.startswith(f"manifest of the bundle {bundle}: no such object")


def test_run_that_has_ended_needs_nothing(service: Service, bundle: str) -> None:
    run_id = started_run(service, bundle)
    change_run(service, run_id, "stop")
    service.objects.drop()
    assert check_needed_objects(service.settings) == 0
