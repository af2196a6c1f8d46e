"""One visit of a device that trains with ExecuTorch, on whatever processor this Python runs.

    python device_round.py URL FOLDER

Prints what it measured of its machine and what the visit came to as one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_sdk import EdgeClient, measure_capabilities, runtime_named

LABELS = ("weather", "food", "sport")


def main(url: str, folder: Path) -> None:
    runtime = runtime_named("executorch")
    measured = measure_capabilities(folder)
    with EdgeClient(
        url, "fleet", folder, enrolment_token="token", capabilities=measured, runtime=runtime, threads=1
    ) as client:
        for number in range(12):
            label = LABELS[number % len(LABELS)]
            client.examples.put(f"{label} snow soup goal {number}", label, key=str(number))
        visit = client.run_once()
    told = {"outcome": visit.outcome, "reason": visit.reason, "measured": measured.model_dump(mode="json")}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
