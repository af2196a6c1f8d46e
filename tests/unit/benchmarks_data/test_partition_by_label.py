from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.data.partition import partition_by_label, stratified_sample
from edge_sdk.examples import Example
from hetlora.errors import SettingsError


def examples_of(**counts: int) -> list[Example]:
    return [Example(f"{label} {number}", label) for label, count in counts.items() for number in range(count)]


@st.composite
def partitions(draw: st.DrawFn) -> tuple[list[Example], int, int, int | None, int]:
    counts = draw(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 12), min_size=1))
    labels_per_device = draw(st.integers(1, len(counts)))
    devices = draw(st.integers(-(-len(counts) // labels_per_device), 12))
    limit = draw(st.none() | st.integers(labels_per_device, 40))
    return examples_of(**counts), devices, labels_per_device, limit, draw(st.integers(0, 2**32))


def split(
    case: tuple[list[Example], int, int, int | None, int],
) -> tuple[list[Example], list[list[Example]], int, int | None]:
    examples, devices, labels_per_device, limit, seed = case
    held = partition_by_label(
        examples, devices, labels_per_device, np.random.default_rng(seed), examples_per_device=limit
    )
    assert len(held) == devices
    return examples, held, labels_per_device, limit


@given(partitions())
def test_no_device_passes_its_labels_or_its_limit(case):
    _, held, labels_per_device, limit = split(case)
    for device in held:
        assert len({example.label for example in device}) <= labels_per_device
        assert limit is None or len(device) <= limit


@given(partitions())
def test_no_example_is_given_twice_or_made_up(case):
    examples, held, _, limit = split(case)
    given_out = [example for device in held for example in device]
    assert len(set(given_out)) == len(given_out)
    assert set(given_out) <= set(examples)
    if limit is None:
        assert len(given_out) == len(examples)


@given(partitions())
def test_every_label_is_held_by_a_device(case):
    examples, held, _, _ = split(case)
    assert {e.label for device in held for e in device} == {e.label for e in examples}


@given(partitions())
def test_a_device_is_smaller_by_more_than_one_only_where_its_labels_ran_out(case):
    examples, held, _, _ = split(case)
    left = Counter(example.label for example in examples)
    left.subtract(example.label for device in held for example in device)
    largest = max(map(len, held))
    for device in held:
        if len(device) < largest - 1:
            assert all(left[label] == 0 for label in {example.label for example in device})


@given(partitions())
def test_the_same_seed_gives_the_same_devices(case):
    assert split(case)[1] == split(case)[1]


def test_eight_devices_with_three_of_twelve_labels_hold_each_label_twice():
    # 8 x 3 = 24 places for 12 labels, and 30 examples of 3 labels are 10 of each.
    examples = examples_of(**{f"label{number}": 20 for number in range(12)})
    held = partition_by_label(examples, 8, 3, np.random.default_rng(0), examples_per_device=30)
    holders = defaultdict(int)
    for device in held:
        counts = Counter(example.label for example in device)
        assert sorted(counts.values()) == [10, 10, 10]
        for label in counts:
            holders[label] += 1
    assert set(holders.values()) == {2}


def test_another_seed_gives_other_devices():
    examples = examples_of(a=9, b=9, c=9, d=9)
    first, second = (partition_by_label(examples, 4, 2, np.random.default_rng(seed)) for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(
    ("devices", "labels_per_device", "limit", "message"),
    [
        pytest.param(0, 1, None, "at least 1 device", id="no device"),
        pytest.param(2, 0, None, "1 to 3 labels", id="no label"),
        pytest.param(2, 4, None, "1 to 3 labels", id="more labels than there are"),
        pytest.param(2, 1, None, "at least 2 labels each", id="a label that nobody would hold"),
        pytest.param(2, 2, 1, "at least 2, one of each label", id="limit below the labels"),
    ],
)
def test_a_partition_that_cannot_be_is_refused(devices, labels_per_device, limit, message):
    with pytest.raises(SettingsError, match=message):
        partition_by_label(
            examples_of(a=2, b=2, c=2),
            devices,
            labels_per_device,
            np.random.default_rng(0),
            examples_per_device=limit,
        )


def test_a_sample_is_balanced_and_leaves_the_rest():
    examples = examples_of(a=5, b=3, c=4)
    sample, rest = stratified_sample(examples, 2, np.random.default_rng(0))
    assert Counter(example.label for example in sample) == {"a": 2, "b": 2, "c": 2}
    assert Counter(example.label for example in rest) == {"a": 3, "b": 1, "c": 2}
    assert sorted(sample + rest, key=examples.index) == examples


def test_a_label_with_too_few_examples_gives_all_to_the_sample():
    sample, rest = stratified_sample(examples_of(a=5, b=1), 2, np.random.default_rng(0))
    assert Counter(example.label for example in sample) == {"a": 2, "b": 1}
    assert Counter(example.label for example in rest) == {"a": 3}


def test_a_sample_does_not_depend_on_the_order_of_labels_but_on_the_seed():
    examples = examples_of(a=50, b=50)
    samples = [set(stratified_sample(examples, 5, np.random.default_rng(seed))[0]) for seed in (0, 0, 1)]
    turned = set(stratified_sample(examples_of(b=50, a=50), 5, np.random.default_rng(0))[0])
    assert samples[0] == samples[1] == turned
    assert samples[0] != samples[2]
