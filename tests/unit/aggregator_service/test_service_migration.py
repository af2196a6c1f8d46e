"""Databases that an older hetlora wrote, of every revision there was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from service_bundle import make_adapter, make_manifest
from sqlalchemy import Engine, create_engine, inspect, select, text

from aggregator_service.artifacts.handouts import handout
from aggregator_service.service import database_url, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.schema import MIGRATIONS, newest_revision, revision_of, upgrade
from aggregator_service.storage.tables import AssignmentRow, Base, BundleRow, DeviceRow, RunRow
from hetlora.messages.device import Adaptation
from hetlora.messages.management import RunSettings
from hetlora.messages.rules import HetLoraRule
from hetlora.tensors import adapter_to_bytes

# As revision 0001 wrote it: neither a rule, nor anything that came with rules.
OLD_SETTINGS = '{"rounds": 1, "goal_count": 1, "max_rank": 2, "training": {"steps": 3}}'
MADE_AT = "2026-11-20 12:00:00.000000"
REVISIONS = sorted(own.revision for own in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield Settings(data_dir=tmp_path)
        return
    with request.getfixturevalue("postgresql").empty() as url:
        yield Settings(data_dir=tmp_path, database_url=SecretStr(url))


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = create_engine(database_url(settings))
    yield engine
    engine.dispose()


def write_old(settings: Settings, engine: Engine, revision: str) -> None:
    """One run with one adapter version, cut to rank 1 for the assignment that is out, at a revision."""
    for name in ("objects", "incoming", "updates"):
        (settings.data_dir / name).mkdir()
    objects = BlobFolder(settings.data_dir / "incoming", settings.data_dir / "objects")
    manifest = objects.put(make_manifest().to_json())
    whole, narrow = (objects.put(adapter_to_bytes(make_adapter(rank))) for rank in (2, 1))
    upgrade(engine, "0001")
    with engine.begin() as connection:
        for statement in (
            f"INSERT INTO populations VALUES ('keyboard', 'hash', '{MADE_AT}')",
            "INSERT INTO devices VALUES ('device-1', 'accepted', '', 'keyboard', 'key', '', NULL, NULL)",
            f"INSERT INTO bundles VALUES ('{manifest.sha256}', 'tiny', 'text-classification', 2, 64, 9, 9)",
            f"""INSERT INTO runs VALUES
                ('run-1', 'running', '', 'keyboard', '{manifest.sha256}', '{OLD_SETTINGS}', 0,
                 'run-1-v000000', '{MADE_AT}')""",
            f"""INSERT INTO adapter_versions VALUES
                ('run-1-v000000', 'candidate', '', 'run-1', -1, '{whole.sha256}', {whole.size_bytes}, 0,
                 '{MADE_AT}')""",
            f"""INSERT INTO truncated_adapters VALUES
                ('run-1-v000000', 1, '{narrow.sha256}', {narrow.size_bytes})""",
            f"""INSERT INTO rounds VALUES
                ('run-1-000000-0000', 'selecting', '', 'run-1', 0, 0, 'run-1-v000000', '{MADE_AT}', NULL,
                 NULL)""",
            f"""INSERT INTO assignments VALUES
                ('assignment-1', 'training', '', 'run-1', 'run-1-000000-0000', 'device-1', 2, '{MADE_AT}', 1,
                 '{narrow.sha256}', NULL, NULL, NULL, NULL, NULL)""",
        ):
            connection.execute(text(statement))
    upgrade(engine, revision)


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
def test_database_of_any_revision_goes_on(settings: Settings, engine: Engine, revision: str) -> None:
    write_old(settings, engine, revision)
    with closing(open_service(settings)) as service:
        assert revision_of(engine) == newest_revision()
        with service.database.read() as session:
            run = session.get_one(RunRow, "run-1")
            assert run.settings.rule == HetLoraRule()
            assert run.settings == RunSettings.model_validate_json(OLD_SETTINGS)
            assert run.trained_rank is None
            assignment = session.get_one(AssignmentRow, "assignment-1")
            assert assignment.adaptation is None
            assert (assignment.offered_in, assignment.base_version, assignment.base_step) == (
                "run-1-000000-0000",
                "run-1-v000000",
                0,
            )
        kept = handout(service, "run-1-v000000", rank=1, seed=0)
        made = handout(service, "run-1-v000000", rank=2, seed=0)
    assert (kept.adaptation, kept.frozen) == (made.adaptation, made.frozen) == (Adaptation(), None)
    assert service.objects.read(kept.adapter.sha256) == adapter_to_bytes(make_adapter(1))
    assert service.objects.read(made.adapter.sha256) == adapter_to_bytes(make_adapter(2))


def test_newest_revision_can_be_taken_back_to_the_first(settings: Settings, engine: Engine) -> None:
    write_old(settings, engine, newest_revision())
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert connection.execute(text("SELECT version, rank FROM truncated_adapters")).all() == [
            ("run-1-v000000", 1)
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
