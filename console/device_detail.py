"""One device: what it can do, what its work came to and why, what rollouts asked of it."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from console.frame import OWN_CHANGES, ROWS, change_rows, frame, read, table
from console.run_figures import short
from console.sessions import Session
from hetlora.messages.common import Page
from hetlora.messages.fleet import Transition
from hetlora.messages.management import AssignmentStatus
from hetlora.messages.quarantine import Reputation
from hetlora.messages.rollouts import RolloutDeviceStatus

Seen = tuple[Reputation, Page[AssignmentStatus], Page[RolloutDeviceStatus], Page[Transition]]
ENDS = ("accepted", "quarantined", "released", "discarded", "failed", "expired", "aborted")


async def device_detail(session: Session, device_id: str) -> None:
    """A device's newest work first; the reason of each assignment says why it was declined, or given back."""
    path, few = f"/devices/{quote(device_id, safe='')}", {"limit": str(ROWS)}
    of_it = {"subject": "device", "subject_id": device_id, "newest_first": "true", **few}

    def ask() -> Seen:
        operator = session.operator
        return (
            operator.quarantine.reputation(device_id),
            operator.page(f"{path}/assignments", AssignmentStatus, few),
            operator.page(f"{path}/rollouts", RolloutDeviceStatus, few),
            operator.page("/transitions", Transition, of_it),
        )

    with frame(session, "Device"):
        seen = await read(ask)
        if seen is None:
            return
        standing, assignments, asked, changes = seen
        ui.label(device_id).classes("wrap")
        ui.label(f"{standing.state}: {standing.reason}").props("role=status").classes("wrap")
        if standing.standing is not None:
            recent = standing.recent_updates
            ui.label(f"Standing {standing.standing:.0%}: the share of its {recent} updates not in quarantine")
        rows = [{"end": end, "assignments": getattr(standing, end)} for end in ENDS]
        table("What its work came to", ["end", "assignments"], rows, "")
        _assignments(assignments.items)
        rows = [
            {"rollout": own.rollout_id, "stage": own.stage, "state": str(own.state), "reason": own.reason}
            for own in asked.items
        ]
        names = ["rollout", "stage", "state", "reason"]
        table("Rollouts", names, rows, "No rollout asked it yet.", lambda row: f"/rollouts/{row['rollout']}")
        table("Its standing with operators", OWN_CHANGES, change_rows(changes.items), "Nothing changed yet.")


def _assignments(given: tuple[AssignmentStatus, ...]) -> None:
    rows = [
        {
            "round": own.round_index + 1,
            "attempt": own.attempt,
            "state": str(own.state),
            "rank": own.rank,
            "loss": short(own.last_loss),
            "seconds": short(own.training_seconds),
            "peak MB": "" if own.peak_memory_bytes is None else round(own.peak_memory_bytes / 1e6),
            "reason": own.reason,
        }
        for own in given
    ]
    names = ["round", "attempt", "state", "rank", "loss", "seconds", "peak MB", "reason"]
    table("Its assignments, newest first", names, rows, "It has had no work yet.")
