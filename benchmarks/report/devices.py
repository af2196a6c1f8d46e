"""Answers about devices: steps, memory, forecasts, rounds, what is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.report.answer import Answer, AnswerOf, Bars, Figures, percent, span


def step(found: Figures) -> Answer:
    rows = found[""]["rows"]
    told = []
    for base in dict.fromkeys(row["base"] for row in rows):
        own = [row for row in rows if row["base"] == base]
        told.append(
            f"{span([row['time_ratio'] for row in own])} times as fast in "
            f"{span([row['memory_ratio'] for row in own])} of the memory with a base in {base}"
        )
    labels = [f"{row['base']}, {row['shape']}, {row['threads']} thread(s)" for row in rows]
    return Answer(
        f"A LoRA step of a decoder of SmolLM-135M's shape is {'; '.join(told)}, beside PyTorch + PEFT with "
        "gradient checkpointing in "
        "the same run: its faster attention counts for time, its leaner one for memory.",
        Bars(labels, [row["time_ratio"] for row in rows], "PyTorch + PEFT's seconds over ours", 1.0),
    )


def executorch(found: Figures) -> Answer:
    own = found[""]
    told = []
    for runtime in dict.fromkeys(row["runtime"] for row in own["rows"]):
        rows = [row for row in own["rows"] if row["runtime"] == runtime]
        told.append(
            f"{span([row['time_ratio'] for row in rows])} times as fast "
            f"({span([row['cpu_time_ratio'] for row in rows])} by the processor's time) in "
            f"{span([row['memory_ratio'] for row in rows])} of the memory in {runtime}"
        )
    program = own["rows"][0]
    return Answer(
        "Beside the training flow of ExecuTorch's own examples, with the same weights, batches and SGD, a "
        f"LoRA step of a Llama of {own['model']['num_hidden_layers']} layers is {'; '.join(told)}. "
        f"The flow's program of {program['peer_program_bytes'] / 1e6:.0f} MB is for one rank and one batch; "
        "a bundle takes any.",
        Bars(
            [f"{row['runtime']}, {row['shape']}" for row in own["rows"]],
            [row["time_ratio"] for row in own["rows"]],
            "the flow's seconds over ours",
            1.0,
        ),
    )


def layers(found: Figures) -> Answer:
    rows = found[""]["rows"]
    least = rows[-1]
    return Answer(
        f"With LoRA on the last {least['last_layers']} of {rows[0]['last_layers']} layers alone a step takes "
        f"{percent(least['time_share'])} of the time and {percent(least['memory_share'])} of the memory: "
        "the backward pass ends where "
        "nothing trains.",
        Bars(
            [f"{row['last_layers']} layers" for row in rows],
            [row["seconds"] for row in rows],
            f"seconds a step, {found['']['shape']} tokens",
        ),
    )


def forecast(found: Figures) -> Answer:
    own = found[""]
    return Answer(
        f"What the planner forecasts before any trial is at most {percent(own['largest_memory_error'], 1)} "
        "off in memory and "
        f"{percent(own['largest_time_error'], 1)} in time over {len(own['rows'])} bundles, ranks and batches "
        f"({percent(own['median_memory_error'], 1)} and {percent(own['median_time_error'], 1)} in the "
        "median).",
        Bars(
            [_case(row) for row in own["rows"]],
            [100 * row["memory_error"] for row in own["rows"]],
            "forecast of memory over measured, % off",
            0.0,
        ),
    )


def boards_in(found: Figures) -> list[str]:
    """The parts of `hetlora bench device` that are of a board with a name."""
    return [part for part, own in found.items() if own.get("board")]


def device(found: Figures) -> Answer:
    own, more = found[""], ""
    if own.get("rounds"):
        small, large = (pick(own["rounds"], key=lambda row: row["peak_rss_mb"]) for pick in (min, max))
        more += (
            " A whole round of three steps of 8 x 64, by EdgeFlowerTune's metrics, holds "
            f"{small['peak_rss_mb']:.0f} to "
            f"{large['peak_rss_mb']:.0f} MiB at its peak."
        )
    if own.get("drift_max") is not None:
        told = any(row[name] is not None for row in own["sustained"] for name in ("watts", "celsius_last"))
        slower = max(own["drift_max"], 0.0)
        more += f" Without a pause steps became {percent(slower, 1)} slower at most" + (
            "." if told else "; this machine has no sensor of heat or power."
        )
    for board in boards_in(found):
        seconds = [row["seconds"] for row in found[board].get("rows", ())]
        if seconds:
            more += f" On {board} a step takes {span(seconds)} s."
    return Answer(
        f"After its trial a device forecasts memory within {percent(own['memory_error_max'], 1)} and time "
        "within "
        f"{percent(own['time_error_max'], 1)}; the SDK adds {percent(own['overhead_max'], 1)} to a "
        "bare step at most, going on after "
        f"a kill costs {own['resume_steps_max']:.2f} of a step, and fresh probes agree within "
        f"{percent(own['probe_deviation_max'], 1)}.{more}",
        "device.png",
    )


def clients(found: Figures) -> Answer:
    rows = [row for row in found[""]["rows"] if row["ratio"] is not None]
    told = []
    for name in dict.fromkeys(row["client"] for row in rows):
        if name != "python":
            told.append(f"{name} {span([row['ratio'] for row in rows if row['client'] == name])}")
    labels = [f"{row['client']}, {row['model']}, {row['threads']} thread(s)" for row in rows]
    return Answer(
        "The same steps in other clients, as times of Python's seconds on one processor: "
        f"{', '.join(told)}. All losses are the same "
        f"within {found['']['loss_tolerance']:g}. None of these is a phone.",
        Bars(labels, [row["ratio"] for row in rows], "seconds over Python's", 1.0),
    )


def install(found: Figures) -> Answer:
    installs = {own["name"]: own for own in found[""]["installs"]}
    edge = installs["edge"]
    client = next(own for own in found[""]["imports"] if own["name"].endswith("import EdgeClient"))
    return Answer(
        f"`pip install '.[edge]'` is {edge['bytes'] / 1e6:.0f} MB in {len(edge['packages'])} packages; "
        "importing `EdgeClient` takes "
        f"{client['processor_seconds']:.2f} s of a processor.",
        Bars([*installs], [own["bytes"] / 1e6 for own in installs.values()], "MB installed"),
    )


def export(found: Figures) -> Answer:
    rows = found[""]["rows"]
    least = min(rows, key=lambda row: row["export_bytes"])
    return Answer(
        f"Exporting a model of {rows[0]['weights_bytes'] / 1e9:.1f} GB holds "
        f"{least['export_bytes'] / 1e6:.0f} to "
        f"{max(row['export_bytes'] for row in rows) / 1e6:.0f} MB beside the libraries, and takes "
        f"{span([row['seconds'] for row in rows], 0)} s.",
        Bars(
            [row["base"] for row in rows],
            [row["export_bytes"] / 1e6 for row in rows],
            "MB held by the export",
        ),
    )


def round_(found: Figures) -> Answer:
    own = found[""]
    last, peer = own["rounds"][-1], own["peer"]
    devices = [row for row in own["processes"] if row["process"] != "service"]
    service = next(row for row in own["processes"] if row["process"] == "service")
    return Answer(
        f"A round of {len(devices)} devices takes {last['seconds']:.1f} s, "
        f"{percent(last['training_share'])} of it training; a device "
        f"holds {span([row['peak_rss_bytes'] / 1e6 for row in devices], 0)} MB and the service "
        f"{service['peak_rss_bytes'] / 1e6:.0f}. "
        f"PyTorch + PEFT takes {peer['time_ratio']:.2f} of our time for the same steps; we take "
        f"{peer['memory_ratio']:.2f} of its memory.",
        Bars(
            [row["process"] for row in own["processes"]],
            [row["peak_rss_bytes"] / 1e6 for row in own["processes"]],
            "peak MB",
        ),
    )


def _case(row: Mapping[str, object]) -> str:
    return f"{row['model']} {row['base']} {row['recompute']} r{row['rank']} {row['shape']}"


ANSWERS: Final[Mapping[str, AnswerOf]] = {
    "step": step,
    "executorch": executorch,
    "layers": layers,
    "forecast": forecast,
    "device": device,
    "clients": clients,
    "install": install,
    "export": export,
    "round": round_,
}
