"""Since when an update of a round cannot be read: it is looked for before it is given up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("unreadable_since", sa.DateTime()))


def downgrade() -> None:
    op.drop_column("rounds", "unreadable_since")
