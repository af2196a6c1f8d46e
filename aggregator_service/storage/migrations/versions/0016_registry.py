"""The registry: aliases with their history, notes, and the keys that sign manifests."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("population", sa.String(), sa.ForeignKey("populations.name"), primary_key=True),
        sa.Column("alias", sa.String(), primary_key=True),
        sa.Column("version", sa.String(), sa.ForeignKey("adapter_versions.id"), nullable=False),
        *_written_by("reason"),
    )
    op.create_index("ix_aliases_version", "aliases", ["version"])
    op.create_table(
        "alias_changes",
        sa.Column("id", ROW_NUMBER, primary_key=True),
        sa.Column("population", sa.String(), sa.ForeignKey("populations.name"), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("old", sa.String()),
        sa.Column("new", sa.String()),
        *_written_by("reason"),
    )
    op.create_index("ix_alias_changes_alias", "alias_changes", ["population", "alias"])
    op.create_table(
        "version_notes",
        sa.Column("id", ROW_NUMBER, primary_key=True),
        sa.Column("version", sa.String(), sa.ForeignKey("adapter_versions.id"), nullable=False),
        *_written_by("text"),
    )
    op.create_index("ix_version_notes_version", "version_notes", ["version"])
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("first_used_at", sa.DateTime(), nullable=False),
    )


def _written_by(words: str) -> tuple[sa.Column[Any], ...]:
    """What an operator wrote, who, and when."""
    texts = (sa.Column(name, sa.String(), nullable=False) for name in (words, "key_id", "key_name"))
    return (*texts, sa.Column("at", sa.DateTime(), nullable=False))


def downgrade() -> None:
    for table in ("signing_keys", "version_notes", "alias_changes", "aliases"):
        op.drop_table(table)
