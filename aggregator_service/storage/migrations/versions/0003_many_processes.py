"""What several processes need: claims on rounds, whose updates are gone from the store, who keeps objects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("claimed_by", sa.String()))
    op.add_column("rounds", sa.Column("claimed_until", sa.DateTime()))
    op.add_column(
        "rounds", sa.Column("updates_dropped", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_table(
        "objects",
        sa.Column("sha256", sa.String(), primary_key=True),
        sa.Column("touched_at", sa.DateTime(), nullable=False),
    )
    op.create_index("ix_objects_touched_at", "objects", ["touched_at"])


def downgrade() -> None:
    op.drop_table("objects")
    for column in ("updates_dropped", "claimed_until", "claimed_by"):
        op.drop_column("rounds", column)
