"""Indexes by which a sweep finds who refers to an object, and which rounds still have updates."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_adapter_versions_sha256", "adapter_versions", ["sha256"]),
    ("ix_adapter_versions_frozen_sha256", "adapter_versions", ["frozen_sha256"]),
    ("ix_adapter_versions_state_sha256", "adapter_versions", ["state_sha256"]),
    ("ix_assignments_adapter_sha256", "assignments", ["adapter_sha256"]),
    ("ix_rounds_updates_dropped", "rounds", ["updates_dropped", "ended_at"]),
)


def upgrade() -> None:
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns)


def downgrade() -> None:
    for name, table, _ in INDEXES:
        op.drop_index(name, table)
