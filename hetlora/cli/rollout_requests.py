"""The operator's requests about labels, groups and rollouts."""

from __future__ import annotations

from collections.abc import Iterator

from hetlora.cli.management_http import ManagementHttp, segment
from hetlora.messages.rollouts import (
    DeviceLabels,
    GroupCreate,
    GroupStatus,
    LabelChange,
    RolloutCreate,
    RolloutDeviceStatus,
    RolloutStatus,
)


class RolloutRequests:
    """One operator's requests; errors are those of `ManagementHttp`."""

    def __init__(self, http: ManagementHttp) -> None:
        self._http = http

    def label(self, device_id: str, change: LabelChange) -> DeviceLabels:
        """Give and take labels of a device."""
        return self._http.post(f"/devices/{segment(device_id)}:label", change, DeviceLabels)

    def create_group(self, message: GroupCreate) -> GroupStatus:
        """Make a group."""
        return self._http.create("/groups", message, GroupStatus)

    def groups(self, population: str | None = None) -> Iterator[GroupStatus]:
        """All groups, or those of one population; devices are not counted."""
        return self._http.pages("/groups", GroupStatus, _of(population))

    def group(self, group_id: str) -> GroupStatus:
        """One group, with how many devices are in it now."""
        return self._http.get(f"/groups/{segment(group_id)}", GroupStatus)

    def delete_group(self, group_id: str) -> None:
        """Forget a group."""
        self._http.do(f"/groups/{segment(group_id)}:delete")

    def create(self, message: RolloutCreate) -> RolloutStatus:
        """Make a rollout in state draft."""
        return self._http.create("/rollouts", message, RolloutStatus)

    def all(self, population: str | None = None) -> Iterator[RolloutStatus]:
        """All rollouts, or those of one population."""
        return self._http.pages("/rollouts", RolloutStatus, _of(population))

    def one(self, rollout_id: str) -> RolloutStatus:
        """One rollout."""
        return self._http.get(f"/rollouts/{segment(rollout_id)}", RolloutStatus)

    def move(self, rollout_id: str, verb: str) -> RolloutStatus:
        """Start, pause, resume, stop or roll back a rollout."""
        return self._http.post(f"/rollouts/{segment(rollout_id)}:{verb}", None, RolloutStatus)

    def devices(self, rollout_id: str, state: str | None = None) -> Iterator[RolloutDeviceStatus]:
        """What a rollout asked of devices, or of those in one state."""
        query = {} if state is None else {"state": state}
        return self._http.pages(f"/rollouts/{segment(rollout_id)}/devices", RolloutDeviceStatus, query)

    def of_device(self, device_id: str) -> Iterator[RolloutDeviceStatus]:
        """What rollouts asked of one device."""
        return self._http.pages(f"/devices/{segment(device_id)}/rollouts", RolloutDeviceStatus)


def _of(population: str | None) -> dict[str, str]:
    return {} if population is None else {"population": population}
