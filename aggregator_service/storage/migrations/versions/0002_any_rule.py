"""What rules other than HetLoRA keep and send: states beside adapters, frozen adapters, adaptations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON(none_as_null=True))


def upgrade() -> None:
    op.add_column("runs", sa.Column("trained_rank", sa.Integer()))
    op.add_column("adapter_versions", sa.Column("state_sha256", sa.String()))
    op.add_column("adapter_versions", _json("figures"))
    op.add_column("assignments", _json("adaptation"))
    op.rename_table("truncated_adapters", "handouts")
    op.add_column("handouts", _json("adaptation"))
    for table in ("adapter_versions", "handouts"):
        op.add_column(table, sa.Column("frozen_sha256", sa.String()))
        op.add_column(table, sa.Column("frozen_bytes", sa.Integer()))


def downgrade() -> None:
    for table in ("adapter_versions", "handouts"):
        op.drop_column(table, "frozen_bytes")
        op.drop_column(table, "frozen_sha256")
    op.drop_column("handouts", "adaptation")
    op.rename_table("handouts", "truncated_adapters")
    op.drop_column("assignments", "adaptation")
    op.drop_column("adapter_versions", "figures")
    op.drop_column("adapter_versions", "state_sha256")
    op.drop_column("runs", "trained_rank")
