"""With which variant of the run's bundle an assignment was taken."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("assignments", sa.Column("variant", sa.String()))


def downgrade() -> None:
    op.drop_column("assignments", "variant")
