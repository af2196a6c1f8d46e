"""One round of one device at a real service; run with a config file.

Prints one JSON object. It needs hetlora's edge part, and nothing of the other parts.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.device.examples import examples_of
from benchmarks.device.sampling import Sampler, mean
from edge_sdk import EdgeClient, StepDone
from edge_sdk.events import Downloaded, Event, Uploaded
from edge_sdk.probe.peak_memory import peak_memory_bytes
from edge_sdk.session.visit import Visit
from hetlora.bundle import open_bundle
from hetlora.errors import HetloraError
from hetlora.messages.device import CapabilityReport

_MIB: Final = 2**20
_PATIENCE_SECONDS: Final = 120.0


class Diary:
    """How long it took from each event of a visit to the next; samples between the adapter and the upload."""

    def __init__(self) -> None:
        self.sampler = Sampler()
        self._sampling = ExitStack()
        self._since_first: list[float] = []  # seconds of the steps after the first
        self._steps = 0
        self.download_seconds = self.upload_seconds = 0.0
        self.download_bytes = self.upload_bytes = 0
        self._last = time.perf_counter()

    def note(self, event: Event) -> None:
        """Take an event as it comes."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        match event:
            case StepDone():
                self._since_first += [seconds] if self._steps else []
                self._steps += 1
            case Downloaded(name="global adapter", size_bytes=size):  # not the bundle, which comes once
                self.download_seconds, self.download_bytes = seconds, size
                self._sampling.enter_context(self.sampler)
            case Uploaded(size_bytes=size):
                self._sampling.close()
                self.upload_seconds, self.upload_bytes = seconds, size
            case _:
                pass

    def step_seconds(self, training_seconds: float) -> list[float]:
        """Seconds of each step; before the first event the runtime is opened, too, which is no step."""
        return [training_seconds - sum(self._since_first), *self._since_first]


def run(config: dict[str, Any]) -> dict[str, Any]:
    """The metrics of one client, as EdgeFlowerTune names them (its MB are MiB)."""
    manifest, diary = open_bundle(Path(config["bundle"]), verify=False).manifest, Diary()
    with EdgeClient(
        config["url"],
        config["population"],
        Path(config["folder"]),
        enrolment_token=config["token"],
        name="board",
        capabilities=CapabilityReport.model_validate(config["capabilities"]),
        threads=config["threads"],
        on_event=diary.note,
    ) as client:
        client.examples.replace_all(examples_of(manifest, config["batch"] * 4, words=config["tokens"]))
        visit = _worked(client)
    assert visit.report is not None
    report, samples, watts = visit.report, diary.sampler.samples, diary.sampler.watts()
    step_seconds = diary.step_seconds(report.training_seconds)
    return {
        "rank": report.rank,
        "steps_completed": len(step_seconds),
        "step_times_sec": [round(seconds, 5) for seconds in step_seconds],
        "mean_step_time_sec": round(mean(step_seconds), 5),
        "max_step_time_sec": round(max(step_seconds), 5),
        "download_time_sec": round(diary.download_seconds, 4),
        "upload_time_sec": round(diary.upload_seconds, 4),
        "download_bytes": diary.download_bytes,
        "upload_bytes": diary.upload_bytes,
        "transmitted_bytes": diary.download_bytes + diary.upload_bytes,
        "avg_rss_mb": round(mean([sample.rss_bytes for sample in samples]) / _MIB, 1),
        "peak_rss_mb": round(peak_memory_bytes() / _MIB, 1),
        "avg_power_w": None if watts is None else round(watts, 2),
        "power_samples": sum(sample.watts is not None for sample in samples),
    }


def _worked(client: EdgeClient) -> Visit:
    """The visit that took part in a round: the service's worker opens one within a second or two."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        visit = client.run_once()
        if visit.outcome != "no_work":
            if visit.outcome != "accepted":
                raise HetloraError("the round failed", got=f"{visit.outcome}: {visit.reason}")
            return visit
        time.sleep(min(visit.retry_after_seconds, 1.0))
    raise HetloraError("no round", got=f"nothing for {_PATIENCE_SECONDS:.0f} s", expected="an offer")


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
