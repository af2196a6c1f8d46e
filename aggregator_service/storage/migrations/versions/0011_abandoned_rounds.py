"""Why rounds were abandoned, which until now their reasons alone told, in words."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# The words of then, however they may be put later. Of the errors those that updates alone bring about: of any
# other the count begins anew.
_KINDS = (("report window closed", "window"), ("run stopped", "stop"))
_FAULTS = (
    ("the defence trusts no update of the round", "state_conflict"),
    ("the round has no update of the trusted device", "state_conflict"),
    ("too many updates for the defence", "settings_invalid"),
    ("the result of the round passes float32", "non_finite_values"),
    ("a product of the round holds values that are not finite", "non_finite_values"),
)


def upgrade() -> None:
    op.add_column("rounds", sa.Column("abandoned_for", sa.String(16)))
    op.add_column("rounds", sa.Column("fault_code", sa.String()))
    rounds = sa.table("rounds", *map(sa.column, ("state", "reason", "abandoned_for", "fault_code")))

    def told(words: tuple[tuple[str, str], ...], otherwise: str | None) -> sa.Case[str | None]:
        return sa.case(*((rounds.c.reason.startswith(start), word) for start, word in words), else_=otherwise)

    abandoned = rounds.update().where(rounds.c.state == "abandoned")
    op.execute(abandoned.values(abandoned_for=told(_KINDS, "aggregation"), fault_code=told(_FAULTS, None)))


def downgrade() -> None:
    op.drop_column("rounds", "fault_code")
    op.drop_column("rounds", "abandoned_for")
