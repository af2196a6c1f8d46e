"""What the client's device can do: given by hand, or measured whenever it is asked."""

from __future__ import annotations

from collections.abc import Callable

from edge_sdk.folder import DeviceFolder
from edge_sdk.probe import ModelShape, RateCache, System, take_probe
from edge_sdk.probe.network import measure_network
from edge_sdk.probe.rates import keep_download_rate
from hetlora.errors import SettingsError
from hetlora.messages.device import CapabilityReport


class Capabilities:
    """The capabilities of one device.

    Measured ones are of the moment, but for rates, which are kept in the device folder for a day.

    Args:
        folder: where the device's rates are kept, and on which disk it lies.
        given: a profile by hand; None measures.
        traffic_bytes_per_round: what adapters may take over the network; a profile has its own.
        clock: Unix seconds.

    Raises:
        SettingsError: traffic beside a profile.
    """

    def __init__(
        self,
        folder: DeviceFolder,
        given: CapabilityReport | None,
        traffic_bytes_per_round: int | None,
        *,
        clock: Callable[[], float],
    ) -> None:
        if given is not None and traffic_bytes_per_round is not None:
            raise SettingsError(
                "traffic_bytes_per_round is given twice",
                got="a number of its own, and capabilities by hand",
                expected="capabilities with traffic_bytes_per_round in them",
            )
        self._folder = folder
        self._given = given
        self._traffic_bytes_per_round = traffic_bytes_per_round
        self._rates = RateCache(folder.rates_file, clock=clock)
        self._clock = clock

    def report(self, shape: ModelShape | None = None) -> CapabilityReport:
        """What the planner and the service are told; with a shape, for a model of that.

        Raises:
            UnavailableError: this system does not tell what planning needs.
        """
        if self._given is not None:
            return self._given
        probe = take_probe(self._folder.root, shape=shape, cache=self._rates, clock=self._clock)
        return probe.report(traffic_bytes_per_round=self._traffic_bytes_per_round)

    def note_download(self, bytes_per_second: float | None) -> None:
        """Remember how fast a long download came; None was none."""
        if self._given is None and bytes_per_second is not None:
            keep_download_rate(self._rates, measure_network(System()), bytes_per_second)
