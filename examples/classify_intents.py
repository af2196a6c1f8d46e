"""An app that sorts what its users write, and learns from their corrections together with its fleet.

    python examples/classify_intents.py URL POPULATION FOLDER "where is my parcel" --learn "money back=refund"

The enrolment token is in HETLORA_ENROLMENT_TOKEN. Ctrl-C ends training within a step; the next start goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading

from edge_sdk import EdgeClient, Event, StepDone, Submitted
from hetlora.errors import NoAdapter, UnavailableError


def show(event: Event) -> None:
    """A progress bar, and what became of the work."""
    match event:
        case StepDone(step, steps, loss):
            print(f"\r[{'#' * (20 * step // steps):<20}] step {step} of {steps}, loss {loss:.2f}", end="")
        case Submitted(report, receipt):
            print(f"\nupdate of rank {report.rank}: {receipt.state}")


def main() -> None:
    """Keep what is corrected, work if there is work, and answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("url", "population", "folder", "text"):
        parser.add_argument(name)
    parser.add_argument("--learn", action="append", default=[], metavar="TEXT=LABEL")
    asked = parser.parse_args()
    token = os.environ.get("HETLORA_ENROLMENT_TOKEN")
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    with EdgeClient(
        asked.url, asked.population, asked.folder, enrolment_token=token, on_event=show
    ) as client:
        for correction in asked.learn:
            text, _, label = correction.rpartition("=")
            client.examples.put(text, label, key=text)  # corrected once more, it is replaced
        try:
            visit = client.run_once(stop=stop)
            print(f"\n{visit.outcome}: {visit.reason}")
        except UnavailableError as error:  # no network, say: what was learnt answers all the same
            print(error)
        try:
            answer = client.adapters.classifier().classify(asked.text)
            print(f"{asked.text}: {answer.label} ({answer.probability:.0%})")
        except NoAdapter:
            print("nothing learnt yet: come back after a round")


if __name__ == "__main__":
    main()
