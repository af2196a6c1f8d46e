"""Answers about the service: aggregation, load, faults, masks, the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.report.answer import Answer, AnswerOf, Bars, Figures, span


def aggregation(found: Figures) -> Answer:
    own = found[""]
    memory = own["peak_rss_bytes_by_count"]
    fewest, most = min(memory, key=int), max(memory, key=int)
    by_kind, flora = own["svd_ratio_to_dense_by_kind"], [*own["flora_ratio_to_dense_by_kind"].values()]
    return Answer(
        f"On one core the weighted mean is {own['ratio_to_flower']:.1f} times as fast as Flower's, and "
        "HetLoRA's, which takes every "
        f"norm first, {own['ratio_to_flower_by_hetlora']:.1f} times; FlexLoRA in factors is "
        f"{span([*by_kind.values()], 1)} times as "
        f"fast as its dense products and SVDs; FLoRA, which finds factors of what it merges, {span(flora)} "
        f"times as fast as the dense mean product alone. {int(most):,} updates of mixed ranks take "
        f"{memory[most] / 1e6:.0f} MB, {int(fewest):,} "
        f"take {memory[fewest] / 1e6:.0f}.",
        Bars(
            ["mean / Flower", "HetLoRA / Flower", *(f"FlexLoRA / dense, {kind}" for kind in by_kind)],
            [own["ratio_to_flower"], own["ratio_to_flower_by_hetlora"], *by_kind.values()],
            "the peer's seconds over ours",
            1.0,
        ),
    )


def service(found: Figures) -> Answer:
    own = found[""]
    peer, fleet = own["peer"], own["fleet"][0]
    return Answer(
        "Beside Flower's SuperLink with the same updates our service carries "
        f"{peer['throughput_ratio']:.0f} times as many a second at "
        f"{1 / peer['cpu_ratio']:.2f} of the processor time each. {fleet['devices']:,} devices over HTTP: "
        f"{fleet['accepted']:,} updates "
        f"accepted in {fleet['rounds']} rounds, {fleet['lost']} lost, {fleet['requests_per_second']:.0f} "
        "requests a second, "
        f"{max(fleet['peak_rss_bytes']) / 1e6:.0f} MB a process.",
        Bars(
            ["ours", "SuperLink"],
            [peer["ours"]["updates_per_second"], peer["superlink"]["updates_per_second"]],
            "updates a second, same devices",
        ),
    )


def chaos(found: Figures) -> Answer:
    faults = sum(own["faults"] for own in found.values())
    violations = sum(own["violations"] for own in found.values())
    kills = sum(own["faults_by_kind"].get("kill", 0) for own in found.values())
    accepted = sum(own["updates_accepted"] for own in found.values())
    kinds: dict[str, int] = {}
    for own in found.values():
        for kind, count in own["faults_by_kind"].items():
            kinds[kind] = kinds.get(kind, 0) + count
    ordered = sorted(kinds, key=lambda kind: kinds[kind])
    return Answer(
        f"{faults:,} faults ({kills:,} kills among them) over {len(found)} kinds of storage, with "
        f"{accepted:,} updates accepted "
        f"meanwhile, broke {violations} of the invariants.",
        Bars([kind.replace("_", " ") for kind in ordered], [kinds[kind] for kind in ordered], "faults"),
    )


def masking(found: Figures) -> Answer:
    rows = found[""]["rows"]
    last = rows[-1]
    return Answer(
        f"With secure aggregation a device of a cohort of {last['cohort']} works "
        f"{last['device_seconds']:.2f} s more and sends "
        f"{last['bytes_ratio']:.1f} times the bytes; the service takes {last['service_seconds']:.1f} s "
        "where it took "
        f"{last['plain_service_seconds']:.1f}.",
        Bars(
            [f"{row['cohort']} devices" for row in rows],
            [row["service_seconds"] for row in rows],
            "seconds of the service",
        ),
    )


def console(found: Figures) -> Answer:
    own = found[""]
    over = sum(len(own[database]["over_bar"]) for database in ("sqlite", "postgresql"))
    labels, values = [], []
    for database in ("sqlite", "postgresql"):
        for page in own[database]["pages"]:
            labels.append(f"{page['name']}, {database}")
            values.append(page["median_ms"])
    return Answer(
        f"Over {own['devices']:,} devices and {own['rounds']:,} rounds {over} of the console's pages are "
        "above their bar; the slowest "
        f"takes {max(values):.0f} ms in the median.",
        Bars(labels, values, "median ms"),
    )


ANSWERS: Final[Mapping[str, AnswerOf]] = {
    "aggregation": aggregation,
    "service": service,
    "chaos": chaos,
    "masking": masking,
    "console": console,
}
