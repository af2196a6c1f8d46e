"""Who is admitted to a population and until when, keys that devices had, texts without NUL."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# What devices and operators say in their own words; PostgreSQL never took a NUL.
_TEXTS = (
    *(
        (table, "reason")
        for table in ("devices", "assignments", "rounds", "runs", "adapter_versions", "transitions")
    ),
    ("devices", "name"),
    ("bundles", "base_model"),
)


def upgrade() -> None:
    op.add_column("populations", sa.Column("admission", sa.String(), nullable=False, server_default="token"))
    op.add_column("populations", sa.Column("token_expires_at", sa.DateTime()))
    op.create_table(
        "replaced_keys",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("device_id", sa.String(), sa.ForeignKey("devices.id"), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("replaced_at", sa.DateTime(), nullable=False),
        sa.UniqueConstraint("device_id", "public_key"),
    )
    if op.get_bind().dialect.name == "sqlite":
        for table, column in _TEXTS:
            _blank_nul(table, column)
        return
    # One for each step of each device: 32 bits do not last.
    op.alter_column("transitions", "id", type_=sa.BigInteger())
    op.execute("ALTER SEQUENCE transitions_id_seq AS BIGINT")


def _blank_nul(table: str, column: str) -> None:
    # SQLite's own `replace` takes a NUL for the end of a text.
    connection = op.get_bind()
    found = connection.execute(
        sa.text(f"SELECT rowid, {column} FROM {table} WHERE instr(CAST({column} AS BLOB), x'00') > 0")
    )
    for rowid, value in found.all():
        connection.execute(
            sa.text(f"UPDATE {table} SET {column} = :value WHERE rowid = :rowid"),
            {"value": value.replace("\0", " "), "rowid": rowid},
        )


def downgrade() -> None:
    op.drop_table("replaced_keys")
    for column in ("token_expires_at", "admission"):
        op.drop_column("populations", column)
