"""The demo's service and its device processes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.demo.fleet_data import FleetData
from benchmarks.demo.profiles import profile_of
from benchmarks.fleet import DeviceSetup, Process, Service, device_process, write_examples
from hetlora.bundle import Bundle
from hetlora.errors import ServiceFailed

POPULATION: Final = "demo"
# All devices stand on one machine and wait for each other: they may ask often.
PACE: Final = {"HETLORA_RETRY_SECONDS": "0.5", "HETLORA_IDLE_RETRY_SECONDS": "0.5"}


class Fleet:
    """A service with the bundle published, and one process a device; leaving the context stops them all."""

    def __init__(self, work: Path, data: FleetData, bundle: Bundle) -> None:
        self._work, self._data, self._bundle = work, data, bundle
        self._service = Service(work / "service", work / "service.log", PACE)
        self._processes: list[Process] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._service)
            self.operator = stack.enter_context(self._service.operator())
            token = self.operator.create_population(POPULATION).enrolment_token
            self.operator.publish_bundle(self._bundle)
            for index, examples in enumerate(self._data.devices):
                kind, capabilities = profile_of(index)
                name = f"{kind} {index + 1}"
                rows = [(example.text, example.label) for example in examples]
                file = write_examples(self._work / f"examples-{index}.json", rows)
                process = device_process(
                    DeviceSetup(name, capabilities, file),
                    url=self._service.url,
                    population=POPULATION,
                    enrolment_token=token,
                    folder=self._work / f"device-{index}",
                )
                self._processes.append(stack.enter_context(process))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raise ServiceFailed with the end of its log if a process has died."""
        for process in (self._service, *self._processes):
            if not process.running:
                raise ServiceFailed("a process of the fleet ended", got=process.log.read_text()[-800:])
