"""What devices told of their masks, for as long as their round is open."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "masking_rounds",
        sa.Column("round_id", sa.String(), sa.ForeignKey("rounds.id"), primary_key=True),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
    )
    op.create_table(
        "masking_members",
        sa.Column("assignment_id", sa.String(), sa.ForeignKey("assignments.id"), primary_key=True),
        sa.Column("round_id", sa.String(), sa.ForeignKey("rounds.id"), nullable=False),
        sa.Column("position", sa.Integer()),
        sa.Column("mask_key", sa.String(), nullable=False),
        sa.Column("share_key", sa.String(), nullable=False),
        sa.Column("sealed", sa.JSON()),
        sa.Column("reveal", sa.JSON()),
    )
    op.create_index("ix_masking_members_round_id", "masking_members", ["round_id"])


def downgrade() -> None:
    op.drop_table("masking_members")
    op.drop_table("masking_rounds")
