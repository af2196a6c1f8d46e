"""The operator's requests about what became of devices and of all else that has states."""

from __future__ import annotations

from collections.abc import Iterator

from hetlora.cli.management_http import ManagementHttp, segment
from hetlora.messages.fleet import ReplacedKey, Subject, Transition
from hetlora.messages.management import AssignmentStatus


class HistoryRequests:
    """One operator's requests; errors are those of `ManagementHttp`."""

    def __init__(self, http: ManagementHttp) -> None:
        self._http = http

    def assignments(self, device_id: str) -> Iterator[AssignmentStatus]:
        """What a device was given to do in any run, newest first."""
        return self._http.pages(f"/devices/{segment(device_id)}/assignments", AssignmentStatus)

    def replaced_keys(self, device_id: str) -> Iterator[ReplacedKey]:
        """The public keys that a device had before, oldest first."""
        return self._http.pages(f"/devices/{segment(device_id)}/replaced-keys", ReplacedKey)

    def transitions(
        self, subject: Subject | None = None, subject_id: str | None = None, *, newest_first: bool = False
    ) -> Iterator[Transition]:
        """Every change of state, or those of one kind of thing, or of one thing."""
        asked = {
            "subject": subject,
            "subject_id": subject_id,
            "newest_first": "true" if newest_first else None,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        return self._http.pages("/transitions", Transition, given)
