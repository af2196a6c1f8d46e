"""Buffered rounds: assignments that outlive the round of their offer, and their staleness."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = ("offered_in", "base_version", "base_step", "staleness")


def upgrade() -> None:
    op.add_column("assignments", sa.Column("offered_in", sa.String()))
    op.add_column("assignments", sa.Column("base_version", sa.String()))
    op.add_column("assignments", sa.Column("base_step", sa.Integer()))
    op.add_column("assignments", sa.Column("staleness", sa.Integer()))
    # Until now an assignment ended with the round of its offer, and was sent what that round began with.
    op.execute(
        "UPDATE assignments SET offered_in = round_id, "
        "base_version = (SELECT base_version FROM rounds WHERE rounds.id = assignments.round_id), "
        "base_step = (SELECT round_index FROM rounds WHERE rounds.id = assignments.round_id)"
    )
    op.create_index("ix_assignments_offered_in", "assignments", ["offered_in"])
    op.create_index("ix_rounds_run_index", "rounds", ["run_id", "round_index"])


def downgrade() -> None:
    op.drop_index("ix_rounds_run_index", "rounds")
    op.drop_index("ix_assignments_offered_in", "assignments")
    for column in COLUMNS:
        op.drop_column("assignments", column)
