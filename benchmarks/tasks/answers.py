"""What a model generates, held against what people wrote: RougeL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Final

import numpy as np

from edge_sdk.adapters.generation import TextGenerator
from edge_sdk.examples import Example
from edge_sdk.runtimes.onnx import OnnxModel
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle

SCORED: Final = 24
NEW_TOKENS: Final = 48


def answer_scorer(bundle: Bundle, examples: Sequence[Example]) -> Callable[[Adapter | None], float]:
    """The mean RougeL of greedy answers to SCORED of the examples."""
    places = np.random.default_rng(0).permutation(len(examples))[:SCORED]
    chosen = [examples[place] for place in places]

    def score(adapter: Adapter | None) -> float:
        generator = TextGenerator(bundle, OnnxModel(bundle, threads=1))
        told = [
            generator.generate(one.text, max_new_tokens=NEW_TOKENS, adapter=adapter).text for one in chosen
        ]
        return fmean(rouge_l(own, one.label) for own, one in zip(told, chosen, strict=True))

    return score


def rouge_l(told: str, wanted: str) -> float:
    """The F-measure of the longest common subsequence of words (Lin, 2004, section 3.2), lower-cased."""
    ours, theirs = told.lower().split(), wanted.lower().split()
    if not ours or not theirs:
        return 0.0
    common = _longest_common(ours, theirs)
    return 2 * common / (len(ours) + len(theirs))


def _longest_common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    before = [0] * (len(theirs) + 1)
    for word in ours:
        row = [0]
        for place, other in enumerate(theirs):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[-1]))
        before = row
    return before[-1]
