"""Text that a bundle generates, against transformers' own greedy search under the same adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft_twin import PeftTwin
from tiny_families import VOCABULARY
from tiny_model import WORDS

from edge_sdk.adapters.generation import TextGenerator
from hetlora.adapter import Adapter, AdapterSpec, initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import SpecMismatch

PROMPT = " ".join(WORDS[:3])
NEW_TOKENS = 8


Case = tuple[Path, Bundle]
MakeAdapter = Callable[[AdapterSpec, int], Adapter]


@pytest.fixture(params=["llama", "gpt2", "t5"])
def case(request: pytest.FixtureRequest, family_bundle: Callable[[str], Case]) -> Case:
    return family_bundle(request.param)


def _expected(case: Case, adapter: Adapter, scratch: Path) -> list[int]:
    model, bundle = case
    twin = PeftTwin(bundle, model, adapter, scratch).wrapped
    ids = torch.tensor([[VOCABULARY[word] for word in PROMPT.split()]])
    with torch.no_grad():
        answer = twin.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=False,
            pad_token_id=VOCABULARY["[PAD]"],
        )[0].tolist()
    new = answer[1:] if bundle.manifest.task == "text2text-generation" else answer[ids.shape[1] :]
    end = VOCABULARY["[SEP]"]
    return new[: new.index(end)] if end in new else new


def test_generated_tokens_are_those_of_transformers_under_each_adapter(
    case: Case, telling_adapter: MakeAdapter, tmp_path: Path
) -> None:
    generator = TextGenerator(case[1], threads=1)
    answers = []
    for seed in (3, 5):  # swapped without opening anything anew
        adapter = telling_adapter(case[1].manifest.adapter, seed)
        answer = generator.generate(PROMPT, max_new_tokens=NEW_TOKENS, adapter=adapter)
        assert list(answer.token_ids) == _expected(case, adapter, tmp_path / str(seed))
        answers.append(answer)
    assert answers[0] != answers[1]


def test_text_is_that_of_its_tokens(case: Case) -> None:
    answer = TextGenerator(case[1], threads=1).generate(PROMPT, max_new_tokens=3)
    words = {number: word for word, number in VOCABULARY.items()}
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert answer.text.split() == [w for token in answer.token_ids if (w := words[token]) not in special]


def test_adapter_of_another_bundle_is_refused(case: Case) -> None:
    spec = case[1].manifest.adapter
    other = initial_adapter(AdapterSpec(spec.modules, 1.0, 4), 2, np.random.default_rng(0))
    with pytest.raises(SpecMismatch):
        TextGenerator(case[1], threads=1).generate(PROMPT, adapter=other)
