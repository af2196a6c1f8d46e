"""What the Python device answers to the cases of three files here, which other clients answer alike.

The files hold questions and answers; `python tests/contract/device_answers.py` writes the answers anew after
a question was added, or after the planner, the conditions or the probe were changed on purpose.

- `planning.json`: a case names what it has other than `base`, field by field.
- `conditions.json`: what is asked of the moment, and how the device is just then.
- `machines.json`: files of kernels, and what a probe reads off them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from device_machines import answer_machines

from edge_sdk import conditions as watching
from edge_sdk.conditions import Watch
from edge_sdk.planning.calibration import correction_of, plan_trial, trial_forecast
from edge_sdk.planning.explanation import bound_in_words, concessions, settled_by_bundle
from edge_sdk.planning.forecast import UNCORRECTED, Correction
from edge_sdk.planning.ladder import ladder, lengths, rows_at_a_time
from edge_sdk.planning.planner import Planner
from edge_sdk.planning.preference import is_unsurpassed, preferred
from edge_sdk.planning.trial import Trial
from edge_sdk.probe.battery import Battery
from edge_sdk.probe.memory import Memory
from hetlora.errors import HetloraError
from hetlora.manifest import parse_manifest
from hetlora.messages.conditions import Conditions
from hetlora.messages.device import CapabilityReport, Offer

FOLDER: Final = Path(__file__).parent
Fields = dict[str, Any]


def planner_of(base: Mapping[str, Fields], case: Fields) -> Planner:
    """The planner of a case: of nested fields only `training` is changed field by field, too."""
    manifest = base["manifest"] | case.get("manifest", {})
    offer = base["offer"] | case.get("offer", {})
    offer["training"] = base["offer"]["training"] | case.get("training", {})
    capabilities = base["capabilities"] | case.get("capabilities", {})
    own: Fields = base["planner"] | case.get("planner", {})
    correction = own.pop("correction")
    return Planner(
        CapabilityReport.model_validate(capabilities),
        parse_manifest(json.dumps(manifest).encode()),
        Offer.model_validate(offer),
        correction=UNCORRECTED if correction is None else Correction(**correction),
        **own,
    )


def told(answer: Callable[..., object], *question: object) -> Any:
    """An answer, or the error in its place."""
    try:
        return answer(*question)
    except HetloraError as error:
        return {
            "error": {"code": error.code, "what": error.what, "got": error.got, "expected": error.expected}
        }


def choice_of(planner: Planner) -> Fields:
    """What a planner chooses, with all that is told of it."""
    choice = planner.choose()
    step, forecast = choice.step, choice.forecast
    return {
        "rank": choice.rank,
        "bound_by": choice.bound_by,
        "max_tokens": choice.max_tokens,
        "step": {
            "batch": step.batch,
            "tokens": step.tokens,
            "rank": step.rank,
            "micro_batch": step.micro_batch,
        },
        "forecast": {
            "peak_bytes": forecast.peak_bytes,
            "step_seconds": forecast.step_seconds,
            "steps": forecast.steps,
            "seconds": forecast.seconds,
            "download_bytes": forecast.download_bytes,
            "upload_bytes": forecast.upload_bytes,
            "traffic_bytes": forecast.traffic_bytes,
            "bundle_bytes": forecast.bundle_bytes,
            "joules": forecast.joules,
        },
        "bound_in_words": bound_in_words(choice),
        "concessions": list(concessions(planner, choice)),
        "settled_by_bundle": list(settled_by_bundle(planner.manifest)),
        "is_unsurpassed": is_unsurpassed(planner.manifest, choice, planner.offer),
    }


def trial_of(planner: Planner) -> Fields:
    """The step that a planner would try, and its forecast before any correction."""
    step = plan_trial(planner)
    forecast = trial_forecast(planner, step)
    return {
        "batch": step.batch,
        "tokens": step.tokens,
        "rank": step.rank,
        "micro_batch": step.micro_batch,
        "peak_bytes": forecast.peak_bytes,
        "step_seconds": forecast.step_seconds,
    }


def answer_planning(file: Fields) -> Fields:
    planners = {case["name"]: planner_of(file["base"], case) for case in file["cases"]}

    def plan(name: str) -> Any:
        planner = planners[name]
        try:
            return planner.manifest, planner.choose()
        except HetloraError:
            return planner.manifest, None

    def corrected(seconds: float, grown_bytes: int | None, watts: float | None) -> Fields:
        forecast = planners[file["cases"][0]["name"]].choose().forecast
        return asdict(correction_of(Trial(seconds, grown_bytes, watts), forecast))

    return {
        "ladders": [one | {"ranks": told(ladder, one["min"], one["max"])} for one in file["ladders"]],
        "rows_at_a_time": [one | {"rows": rows_at_a_time(one["batch"])} for one in file["rows_at_a_time"]],
        "lengths": [one | {"tokens": lengths(one["most"], one["least"])} for one in file["lengths"]],
        "base": file["base"],
        "cases": [case | {"expected": told(choice_of, planners[case["name"]])} for case in file["cases"]],
        "rows_for": [
            one | {"rows": told(planners[one["case"]].rows_for, one["rank"], one["tokens"])}
            for one in file["rows_for"]
        ],
        "trials": [{"case": name, "trial": told(trial_of, planner)} for name, planner in planners.items()],
        # Of steps of the first case.
        "corrections": [
            one | {"correction": corrected(one["seconds"], one["grown_bytes"], one["watts"])}
            for one in file["corrections"]
        ],
        "preferences": [
            one | {"preferred": preferred([plan(name) for name in one["cases"]], one["max_tokens"])}
            for one in file["preferences"]
        ],
    }


def watch_of(case: Fields) -> Watch:
    asked: Fields = {name: Conditions.model_validate(case.get(name, {})) for name in ("own", "of_run")}
    of_app: Fields = {
        f"is_{name}": (lambda known=known: known) for name, known in case.get("app", {}).items()
    }
    moment = datetime.fromisoformat(f"2026-11-22T{case.get('moment', '12:00')}")
    return Watch(now=lambda: moment, **asked, **of_app)


def watched(case: Fields) -> Fields:
    """What a watch says while the device is as the case has it."""
    device = case.get("device", {})
    battery, memory = device.get("battery"), device.get("memory")
    sources = {
        "battery": None if battery is None else Battery(**battery),
        "memory": None if memory is None else Memory(**memory),
        "temperature": device.get("temperature_celsius"),
        "network": device.get("network"),
    }
    found: Fields = {f"measure_{name}": (lambda _, value=value: value) for name, value in sources.items()}
    with patch.multiple(watching, **found):
        watch = watch_of(case)
        return {"unmet": watch.unmet(), "metered": watch.metered(), "reserved_bytes": watch.reserved_bytes()}


def answer_conditions(file: Fields) -> Fields:
    return {"cases": [case | {"expected": told(watched, case)} for case in file["cases"]]}


ANSWERS: Final[Mapping[str, Callable[[Fields], Fields]]] = {
    "planning.json": answer_planning,
    "conditions.json": answer_conditions,
    "machines.json": answer_machines,
}


def as_lines(file: Fields) -> str:
    """JSON with one line for each case, so that a change of one shows as such."""
    parts = []
    for name, value in file.items():
        items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
        lines = ",\n".join(
            "    " + ("" if key is None else f"{json.dumps(key)}: ") + json.dumps(item) for key, item in items
        )
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        parts.append(f"  {json.dumps(name)}: {opening}\n{lines}\n  {closing}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    for name, answer in ANSWERS.items():
        path = FOLDER / name
        path.write_text(as_lines(answer(json.loads(path.read_text()))))


if __name__ == "__main__":
    main()
