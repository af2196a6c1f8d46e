"""The operator's requests about quarantined updates, and about the devices that they came from."""

from __future__ import annotations

from collections.abc import Iterator

from hetlora.cli.management_http import ManagementHttp, Moved, segment, unwatched
from hetlora.messages.fleet import PopulationStatus
from hetlora.messages.quarantine import (
    QuarantineDecision,
    QuarantinedUpdate,
    QuarantineVerb,
    Reputation,
    SuspensionRule,
    SuspensionSetting,
)
from hetlora.states import QuarantineState


class QuarantineRequests:
    """One operator's requests; errors are those of `ManagementHttp`."""

    def __init__(self, http: ManagementHttp) -> None:
        self._http = http

    def all(
        self,
        *,
        run_id: str | None = None,
        device_id: str | None = None,
        state: QuarantineState | None = None,
    ) -> Iterator[QuarantinedUpdate]:
        """Quarantined updates, newest first."""
        asked = {"run_id": run_id, "device_id": device_id, "state": state}
        given = {name: str(value) for name, value in asked.items() if value is not None}
        return self._http.pages("/quarantine", QuarantinedUpdate, given)

    def one(self, assignment_id: str) -> QuarantinedUpdate:
        """One of them."""
        return self._http.get(f"/quarantine/{segment(assignment_id)}", QuarantinedUpdate)

    def content(self, assignment_id: str, moved: Moved = unwatched) -> bytes:
        """A quarantined update as its device sent it."""
        return self._http.content(f"/quarantine/{segment(assignment_id)}/content", moved)

    def decide(self, assignment_id: str, verb: QuarantineVerb, reason: str) -> QuarantinedUpdate:
        """Release or confirm one."""
        path = f"/quarantine/{segment(assignment_id)}:{verb}"
        return self._http.post(path, QuarantineDecision(reason=reason), QuarantinedUpdate)

    def reputation(self, device_id: str) -> Reputation:
        """What a device's assignments came to."""
        return self._http.get(f"/devices/{segment(device_id)}/reputation", Reputation)

    def suspend_after(self, population: str, rule: SuspensionRule | None) -> PopulationStatus:
        """Say when devices of a population are suspended by themselves; None: never."""
        path = f"/populations/{segment(population)}:suspend-after"
        return self._http.post(path, SuspensionSetting(rule=rule), PopulationStatus)
