"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(name: str, *constraints: sa.ForeignKey, key: bool = False, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), *constraints, primary_key=key, nullable=null)


def _number(name: str, *, key: bool = False, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), primary_key=key, nullable=null)


def _time(name: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(), nullable=null)


def _stateful() -> tuple[sa.Column[str], ...]:
    state = sa.Column("state", sa.String(16), nullable=False)
    return _text("id", key=True), state, _text("reason")


def upgrade() -> None:
    _create_fleet()
    _create_runs()
    _create_assignments()
    _create_records()


def _create_fleet() -> None:
    op.create_table(
        "populations", _text("name", key=True), _text("enrolment_token_sha256"), _time("created_at")
    )
    op.create_table(
        "devices",
        *_stateful(),
        _text("population", sa.ForeignKey("populations.name")),
        _text("public_key"),
        _text("name"),
        sa.Column("capabilities", sa.JSON(none_as_null=True)),
        _time("last_contact_at", null=True),
    )
    op.create_index("ix_devices_population", "devices", ["population"])


def _create_runs() -> None:
    op.create_table(
        "bundles",
        _text("digest", key=True),
        _text("base_model"),
        _text("task"),
        _number("max_rank"),
        _number("max_tokens"),
        _number("manifest_bytes"),
        _number("size_bytes"),
    )
    op.create_table(
        "runs",
        *_stateful(),
        _text("population", sa.ForeignKey("populations.name")),
        _text("bundle", sa.ForeignKey("bundles.digest")),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        _number("rounds_committed"),
        _text("adapter_version", null=True),
        _time("created_at"),
    )
    op.create_index("ix_runs_population", "runs", ["population"])
    op.create_table(
        "adapter_versions",
        *_stateful(),
        _text("run_id", sa.ForeignKey("runs.id")),
        _number("round_index"),
        _text("sha256"),
        _number("size_bytes"),
        _number("update_count"),
        _time("created_at"),
    )
    op.create_index("ix_adapter_versions_run_id", "adapter_versions", ["run_id"])
    op.create_table(
        "truncated_adapters",
        _text("version", sa.ForeignKey("adapter_versions.id"), key=True),
        _number("rank", key=True),
        _text("sha256"),
        _number("size_bytes"),
    )


def _create_assignments() -> None:
    op.create_table(
        "rounds",
        *_stateful(),
        _text("run_id", sa.ForeignKey("runs.id")),
        _number("round_index"),
        _number("attempt"),
        _text("base_version", sa.ForeignKey("adapter_versions.id")),
        _time("started_at"),
        _time("window_closes_at", null=True),
        _time("ended_at", null=True),
    )
    op.create_index("ix_rounds_run_state", "rounds", ["run_id", "state"])
    op.create_table(
        "assignments",
        *_stateful(),
        _text("run_id", sa.ForeignKey("runs.id")),
        _text("round_id", sa.ForeignKey("rounds.id")),
        _text("device_id", sa.ForeignKey("devices.id")),
        _number("max_rank"),
        _time("lease_expires_at"),
        _number("rank", null=True),
        _text("adapter_sha256", null=True),
        _text("update_sha256", null=True),
        _number("update_bytes", null=True),
        _number("updated_rank", null=True),
        sa.Column("report", sa.JSON(none_as_null=True)),
        sa.Column("aggregation_weight", sa.Double()),
    )
    op.create_index("ix_assignments_run_id", "assignments", ["run_id"])
    op.create_index("ix_assignments_round_state", "assignments", ["round_id", "state"])
    op.create_index("ix_assignments_device_state", "assignments", ["device_id", "state"])
    op.create_index("ix_assignments_state_lease", "assignments", ["state", "lease_expires_at"])
    op.create_table(
        "rank_limits",
        _text("run_id", sa.ForeignKey("runs.id"), key=True),
        _text("device_id", sa.ForeignKey("devices.id"), key=True),
        _number("max_rank"),
    )


def _create_records() -> None:
    op.create_table("nonces", _text("device_id", key=True), _text("nonce", key=True), _time("expires_at"))
    op.create_index("ix_nonces_expires_at", "nonces", ["expires_at"])
    op.create_table("operator_tokens", _text("sha256", key=True))
    op.create_table(
        "transitions",
        _number("id", key=True),
        _text("subject"),
        _text("subject_id"),
        _text("old", null=True),
        _text("new"),
        _text("reason"),
        _time("at"),
    )
    op.create_index("ix_transitions_subject", "transitions", ["subject", "subject_id"])


def downgrade() -> None:
    for table in (
        "transitions",
        "operator_tokens",
        "nonces",
        "rank_limits",
        "assignments",
        "rounds",
        "truncated_adapters",
        "adapter_versions",
        "runs",
        "bundles",
        "devices",
        "populations",
    ):
        op.drop_table(table)
