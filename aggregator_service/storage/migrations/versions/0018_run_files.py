"""A run's name, the hash of what it was asked to be, the run that it was cloned from, its schedule."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("name", sa.String()))
    op.add_column("runs", sa.Column("request_sha256", sa.String()))
    op.add_column("runs", sa.Column("cloned_from", sa.String()))
    for name in ("starts_at", "stops_at"):
        op.add_column("runs", sa.Column(name, sa.DateTime()))
        op.create_index(f"ix_runs_{name}", "runs", [name])
    op.create_index("ix_runs_population_name", "runs", ["population", "name"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_runs_population_name", "runs")
    for name in ("starts_at", "stops_at"):
        op.drop_index(f"ix_runs_{name}", "runs")
    for name in ("stops_at", "starts_at", "cloned_from", "request_sha256", "name"):
        op.drop_column("runs", name)
