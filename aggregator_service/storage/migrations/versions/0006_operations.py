"""What operations need: devices counted by state, and the request that met a round's goal, for its span."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("traceparent", sa.String()))
    op.create_index("ix_devices_state", "devices", ["state"])


def downgrade() -> None:
    op.drop_index("ix_devices_state", "devices")
    op.drop_column("rounds", "traceparent")
