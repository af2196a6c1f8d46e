"""Differential privacy: the budgets of populations, and what rounds spent of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "privacy_budgets",
        sa.Column("population", sa.String(), sa.ForeignKey("populations.name"), primary_key=True),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("delta", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "privacy_spends",
        sa.Column("run_id", sa.String(), sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("round_index", sa.Integer(), primary_key=True),
        sa.Column("population", sa.String(), sa.ForeignKey("populations.name"), nullable=False),
        sa.Column("noise_multiplier", sa.Double(), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("delta", sa.Double(), nullable=False),
        sa.Column("spent_at", sa.DateTime(), nullable=False),
        sa.Column("noise_seed", sa.String()),
    )
    op.create_index("ix_privacy_spends_population", "privacy_spends", ["population"])


def downgrade() -> None:
    op.drop_table("privacy_spends")
    op.drop_table("privacy_budgets")
