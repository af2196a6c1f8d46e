"""Databases that an older hetlora wrote, of every revision there was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from migration_messages import OLD_SETTINGS, UPDATE
from migration_rows import NARROW, NEWEST, OBJECTS, WAITING_ROUND, write_rows
from pydantic import SecretStr
from service_operator import TOKEN, Operator
from service_server import served
from service_tables import every_value
from sqlalchemy import Engine, create_engine, inspect, select, text
from typer.testing import CliRunner

from aggregator_service.app import create_app
from aggregator_service.artifacts.handouts import handout
from aggregator_service.needed_objects import check_needed_objects
from aggregator_service.service import Service, database_url, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.columns import AbandonedFor
from aggregator_service.storage.schema import MIGRATIONS, upgrade
from aggregator_service.storage.store import Store
from aggregator_service.storage.tables import AssignmentRow, Base, BundleRow, DeviceRow, RoundRow, RunRow
from aggregator_service.worker.commit import commit_round
from hetlora.cli.main import app
from hetlora.messages.device import Adaptation
from hetlora.messages.management import RunSettings
from hetlora.messages.rules import HetLoraRule
from hetlora.states import RoundState, RunState

REVISIONS = sorted(own.revision for own in ScriptDirectory(str(MIGRATIONS)).walk_revisions())
RENAMED = {"truncated_adapters": "handouts"}
# What the service lists, and the revision that brought each of the rows.
LISTED = {
    "/populations": ("0001", "0008"),
    "/devices": ("0001", "0001"),
    "/devices/device-1/replaced-keys": ("0008",),
    "/bundles": ("0001",),
    "/runs": ("0001", "0001"),
    "/runs/run-1/rounds": ("0001",) * 4,
    "/runs/run-1/assignments": ("0001",) * 4,
    "/runs/run-2/adapters": ("0001", "0001"),
    "/transitions": ("0001", "0001"),
    "/keys": ("0005",),
    "/audit": ("0005",),
    "/populations/keyboard/aliases": ("0016",),
    "/populations/keyboard/aliases/champion/history": ("0016",) * 2,
    "/adapters/run-1-v000001/notes": ("0016",),
    "/signing-keys": ("0016",),
}
Rows = list[dict[str, Any]]


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Of a service that never started, as `hetlora db` finds them too; nobody settles anything unasked."""
    monkeypatch.setenv("HETLORA_DATA_DIR", str(tmp_path))
    own = Settings(role="api", port=0, operator_token=SecretStr(TOKEN))
    if request.param == "sqlite":
        yield own
        return
    with request.getfixturevalue("postgresql").empty() as url:
        monkeypatch.setenv("HETLORA_DATABASE_URL", url)
        yield own.model_copy(update={"database_url": SecretStr(url)})


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = create_engine(database_url(settings))
    yield engine
    engine.dispose()


def write_old(settings: Settings, engine: Engine, revision: str) -> None:
    """The database and the objects of a service of a revision."""
    store = Store(settings.data_dir)
    store.incoming.mkdir()
    for folder, contents in (("objects", OBJECTS), (f"updates/{WAITING_ROUND}", [UPDATE])):
        for data in contents:
            store.blobs(folder).put(data)
    upgrade(engine, revision)
    with engine.begin() as connection:
        write_rows(connection, revision)


def every_row(engine: Engine) -> dict[str, Rows]:
    """The tables as they are, past the service's own idea of them."""
    with engine.connect() as connection:
        names = set(inspect(connection).get_table_names()) - {"alembic_version"}
        return {
            name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]
            for name in names
        }


def ordered(rows: Rows, columns: set[str]) -> list[str]:
    return sorted(str({name: row[name] for name in sorted(columns)}) for row in rows)


def test_migrations_give_exactly_the_tables(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        inspector = inspect(connection)
        assert set(inspector.get_table_names()) == {*Base.metadata.tables, "alembic_version"}
        for table in Base.metadata.tables.values():
            found = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
            assert found == {column.name: column.nullable for column in table.columns}
            # compare_metadata is blind to a primary key.
            key = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key.columns]


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_value_of_any_revision_is_kept(settings: Settings, engine: Engine, revision: str) -> None:
    write_old(settings, engine, revision)
    before = every_row(engine)
    for table, rows in before.items():  # so that nothing is kept for want of anything to lose
        assert rows, table
        assert {name for row in rows for name, value in row.items() if value is not None} == {*rows[0]}, table
    upgrade(engine)
    after = every_row(engine)
    for table, rows in before.items():
        assert ordered(after[RENAMED.get(table, table)], {*rows[0]}) == ordered(rows, {*rows[0]}), table


@pytest.mark.parametrize("revision", REVISIONS)
def test_service_goes_on_with_a_database_of_any_revision(
    settings: Settings, engine: Engine, revision: str
) -> None:
    write_old(settings, engine, revision)
    with closing(open_service(settings)) as service:
        assert CliRunner().invoke(app, ["db", "check"]).exit_code == 0
        assert check_needed_objects(settings) == 1
        with served(create_app(service), settings) as http:
            listed_well(Operator(http), revision)
        assert every_value(service)  # each is one that its column can hold
        filled_well(service)
        handed_out_well(service)
        commit_round(service, WAITING_ROUND)
        with service.database.read() as session:
            assert session.get_one(RoundRow, WAITING_ROUND).state is RoundState.COMMITTED
            run = session.get_one(RunRow, "run-1")
            assert (run.state, run.adapter_version) == (RunState.COMPLETED, "run-1-v000002")


def listed_well(operator: Operator, revision: str) -> None:
    """Operators see what there was, and what they do leaves a record beside the old ones."""
    listed = {path: operator.items(path) for path in LISTED}
    assert {path: len(items) for path, items in listed.items()} == {
        path: sum(revision >= since for since in brought_by) for path, brought_by in LISTED.items()
    }
    assert [(run["state"], run["settings"]["rule"]["name"]) for run in listed["/runs"]] == [
        ("running", "hetlora"),
        ("stopped", "lora_a2" if revision >= "0002" else "hetlora"),
    ]
    assert listed["/runs/run-1/assignments"][0]["device_name"] == "it's one"
    newest = listed["/runs/run-2/adapters"][0]
    assert (newest["figures"], newest["frozen"]) == (
        ({"kept": 0.5}, {"sha256": "3" * 64, "size_bytes": 9}) if revision >= "0002" else ({}, None)
    )
    assert (newest["evaluation"] is not None) == (revision >= "0010")
    operator.call("POST", "/runs/run-1:pause")
    operator.call("POST", "/runs/run-1:resume")
    assert len(operator.items("/transitions")) == len(listed["/transitions"]) + 2
    assert len(operator.items("/audit")) == len(listed["/audit"]) + 2


def filled_well(service: Service) -> None:
    """What an older revision did not say follows from what it said."""
    with service.database.read() as session:
        run = session.get_one(RunRow, "run-1")
        assert run.settings.rule == HetLoraRule()
        assert run.settings == RunSettings.model_validate(OLD_SETTINGS)
        assert run.trained_rank is None
        rows = session.scalars(select(AssignmentRow).order_by(AssignmentRow.id))
        assert [(row.offered_in, row.base_version, row.base_step) for row in rows] == [
            ("run-1-000000-0000", "run-1-v000000", 0),
            ("run-1-000000-0001", "run-1-v000000", 0),
            (WAITING_ROUND, "run-1-v000001", 1),
            (WAITING_ROUND, "run-1-v000001", 1),
            ("run-2-000000-0000", "run-2-v000000", 0),
        ]
        abandoned = select(RoundRow).where(RoundRow.abandoned_for.is_not(None)).order_by(RoundRow.id)
        assert [(row.id, row.abandoned_for, row.fault_code) for row in session.scalars(abandoned)] == [
            ("run-1-000000-0000", AbandonedFor.WINDOW, None),
            ("run-1-000001-0000", AbandonedFor.AGGREGATION, "state_conflict"),
            ("run-2-000001-0000", AbandonedFor.STOP, None),
        ]


def handed_out_well(service: Service) -> None:
    """The adapter that was cut to rank 1 is given out again, and one is cut to rank 2."""
    kept = handout(service, "run-1-v000001", rank=1, seed=0)
    made = handout(service, "run-1-v000001", rank=2, seed=0)
    assert (kept.adaptation, kept.frozen) == (made.adaptation, made.frozen) == (Adaptation(), None)
    assert service.objects.read(kept.adapter.sha256) == NARROW
    assert service.objects.read(made.adapter.sha256) == NEWEST


def test_newest_revision_can_be_taken_back_to_the_first(settings: Settings, engine: Engine) -> None:
    write_old(settings, engine, REVISIONS[-1])
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert connection.execute(text("SELECT version, rank FROM truncated_adapters")).all() == [
            ("run-1-v000001", 1),
            ("run-2-v000001", 1),
        ]


def test_texts_with_nul_of_an_older_service_are_mended(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    engine = create_engine(database_url(settings))
    write_old(settings, engine, "0001")
    with engine.begin() as connection:
        connection.execute(text("UPDATE devices SET name = :nul, reason = :nul"), {"nul": "a\0b"})
    engine.dispose()
    with closing(open_service(settings)) as service, service.database.read() as session:
        device = session.get_one(DeviceRow, "device-1")
        assert (device.name, device.reason) == ("a b", "a b")


def test_size_beyond_32_bits_is_kept(settings: Settings, engine: Engine) -> None:
    write_old(settings, engine, "0001")
    with closing(open_service(settings)) as service:
        with service.database.write() as session:
            session.scalars(select(BundleRow)).one().size_bytes = 2**33
        with service.database.read() as session:
            assert session.scalar(select(BundleRow.size_bytes)) == 2**33
