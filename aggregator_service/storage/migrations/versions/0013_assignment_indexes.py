"""Indexes that hold all that is asked at once: of others SQLite took one by which it read nearly all rows."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_assignments_run_id", "assignments")
    op.create_index("ix_assignments_run_state_lease", "assignments", ["run_id", "state", "lease_expires_at"])
    op.drop_index("ix_assignments_device_state", "assignments")
    op.create_index("ix_assignments_device_state", "assignments", ["device_id", "state", "adapter_sha256"])


def downgrade() -> None:
    op.drop_index("ix_assignments_device_state", "assignments")
    op.create_index("ix_assignments_device_state", "assignments", ["device_id", "state"])
    op.drop_index("ix_assignments_run_state_lease", "assignments")
    op.create_index("ix_assignments_run_id", "assignments", ["run_id"])
