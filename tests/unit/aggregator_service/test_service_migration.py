"""Data folders that an older hetlora wrote."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from service_bundle import make_adapter, make_manifest
from sqlalchemy import create_engine, text

from aggregator_service.handouts import handout
from aggregator_service.service import open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.schema import MIGRATIONS
from aggregator_service.storage.tables import AssignmentRow, RunRow
from hetlora.messages.device import Adaptation
from hetlora.messages.management import RunSettings
from hetlora.messages.rules import HetLoraRule
from hetlora.tensors import adapter_to_bytes

# As revision 0001 wrote it: neither a rule, nor anything that came with rules.
OLD_SETTINGS = '{"rounds": 1, "goal_count": 1, "max_rank": 2, "training": {"steps": 3}}'
MADE_AT = "2026-11-20 12:00:00.000000"


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    """One run with one adapter version, cut to rank 1 for the assignment that is out."""
    for name in ("objects", "incoming", "updates"):
        (tmp_path / name).mkdir()
    objects = BlobFolder(tmp_path / "incoming", tmp_path / "objects")
    manifest = objects.put(make_manifest().to_json())
    whole, narrow = (objects.put(adapter_to_bytes(make_adapter(rank))) for rank in (2, 1))
    engine = create_engine(f"sqlite:///{tmp_path / 'hetlora.sqlite'}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
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
    engine.dispose()
    return tmp_path


def test_folder_of_the_first_revision_goes_on_as_plain_hetlora(old_folder: Path) -> None:
    with closing(open_service(Settings(data_dir=old_folder))) as service:
        with service.database.read() as session:
            run = session.get_one(RunRow, "run-1")
            assert run.settings.rule == HetLoraRule()
            assert run.settings == RunSettings.model_validate_json(OLD_SETTINGS)
            assert run.trained_rank is None
            assert session.get_one(AssignmentRow, "assignment-1").adaptation is None
        kept = handout(service, "run-1-v000000", rank=1, seed=0)
        made = handout(service, "run-1-v000000", rank=2, seed=0)
    assert (kept.adaptation, kept.frozen) == (made.adaptation, made.frozen) == (Adaptation(), None)
    assert service.objects.read(kept.adapter.sha256) == adapter_to_bytes(make_adapter(1))
    assert service.objects.read(made.adapter.sha256) == adapter_to_bytes(make_adapter(2))


def test_newest_revision_can_be_taken_back(old_folder: Path) -> None:
    open_service(Settings(data_dir=old_folder)).close()
    engine = create_engine(f"sqlite:///{old_folder / 'hetlora.sqlite'}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert connection.execute(text("SELECT version, rank FROM truncated_adapters")).all() == [
            ("run-1-v000000", 1)
        ]
    engine.dispose()
