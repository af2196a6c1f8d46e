"""Who holds which examples: devices with only a few labels each, and balanced held-out samples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from benchmarks.data.labelled_text import draw_by_label
from edge_sdk.examples import Example
from hetlora.errors import SettingsError


def partition_by_label(
    examples: Sequence[Example],
    devices: int,
    labels_per_device: int,
    rng: np.random.Generator,
    *,
    examples_per_device: int | None = None,
) -> list[list[Example]]:
    """Give each device examples of at most `labels_per_device` labels, none of them twice.

    Every label is held by at least one device, and by nearly as many devices as every other. Devices take
    turns, each taking one example of that label of its own of which it has least, until all have
    `examples_per_device` or nothing is left for them: so a device has fewer than another, by more than one,
    only where its labels ran out.

    Raises:
        SettingsError: the devices' labels together, or the examples of one device, are too few.
    """
    by_label = _group_by_label(examples)
    if devices < 1 or not 1 <= labels_per_device <= len(by_label):
        raise SettingsError(
            "devices or labels per device out of range",
            got=f"{devices} devices with {labels_per_device} labels each",
            expected=f"at least 1 device and 1 to {len(by_label)} labels",
        )
    if devices * labels_per_device < len(by_label):
        raise SettingsError(
            "too few devices to hold every label",
            got=f"{devices} devices with {labels_per_device} labels each",
            expected=f"at least {-(-len(by_label) // devices)} labels each for {len(by_label)} labels",
        )
    limit = len(examples) if examples_per_device is None else examples_per_device
    if limit < labels_per_device:
        raise SettingsError(
            "examples per device", got=limit, expected=f"at least {labels_per_device}, one of each label"
        )
    stock = {label: _shuffled(found, rng) for label, found in by_label.items()}
    return _take_turns(stock, _deal_labels(list(stock), devices, labels_per_device, rng), limit)


def stratified_sample(
    examples: Sequence[Example], per_label: int, rng: np.random.Generator
) -> tuple[list[Example], list[Example]]:
    """Draw `per_label` examples of each label, and return them and the examples left over.

    A label with fewer examples gives all that it has. Both lists keep the order of `examples`.
    """
    return draw_by_label(examples, lambda available: min(per_label, available), rng)


def _group_by_label(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """The examples of each label, labels in alphabetical order."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.label].append(example)
    return dict(sorted(groups.items()))


def _shuffled(examples: list[Example], rng: np.random.Generator) -> list[Example]:
    return [examples[position] for position in rng.permutation(len(examples))]


def _deal_labels(
    labels: list[str], devices: int, labels_per_device: int, rng: np.random.Generator
) -> list[list[str]]:
    """For each device the labels that fewest devices hold so far, ties broken by chance."""
    holders: Counter[str] = Counter()
    dealt = []
    for _ in range(devices):
        by_chance = [labels[position] for position in rng.permutation(len(labels))]
        chosen = sorted(by_chance, key=lambda label: holders[label])[:labels_per_device]
        holders.update(chosen)
        dealt.append(chosen)
    return dealt


def _take_turns(
    stock: dict[str, list[Example]], labels_of: list[list[str]], limit: int
) -> list[list[Example]]:
    held: list[list[Example]] = [[] for _ in labels_of]
    counts = [Counter(dict.fromkeys(labels, 0)) for labels in labels_of]
    active = set(range(len(held)))
    while active:
        for device in sorted(active):
            left = [label for label in labels_of[device] if stock[label]]
            if not left or len(held[device]) == limit:
                active.discard(device)
                continue
            label = min(left, key=counts[device].__getitem__)
            held[device].append(stock[label].pop())
            counts[device][label] += 1
    return held
