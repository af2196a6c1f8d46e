"""Text that a bundle generates, against transformers' own greedy search under the same adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft_twin import PeftTwin
from tiny_families import VOCABULARY, write_tiny_family
from tiny_model import WORDS

from edge_sdk.generation import TextGenerator
from export.bundle_writer import export_bundle
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid, DataError, SpecMismatch

PROMPT = " ".join(WORDS[:3])
NEW_TOKENS = 8
TASKS = {"llama": "text-generation", "gpt2": "text-generation", "t5": "text2text-generation"}


def _adapter(spec: AdapterSpec, seed: int) -> Adapter:
    """Far enough from zero to change which token is the most likely one."""
    rng = np.random.default_rng(seed)
    fresh = initial_adapter(spec, 4, rng)
    return Adapter(
        spec,
        {
            module.name: LoraFactors(factors.lora_A, rng.standard_normal(factors.lora_B.shape))
            for module, factors in fresh
        },
    )


Case = tuple[Path, Bundle]


@pytest.fixture(scope="module", params=TASKS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    model = write_tiny_family(root / "model", request.param)
    return model, export_bundle(
        str(model),
        root / "bundle",
        task=TASKS[request.param],
        targets=["all-linear"],
        max_rank=4,
        max_tokens=16,
    )


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


def test_generated_tokens_are_those_of_transformers_under_each_adapter(case: Case, tmp_path: Path) -> None:
    generator = TextGenerator(case[1], threads=1)
    answers = []
    for seed in (3, 5):  # swapped without opening anything anew
        adapter = _adapter(case[1].manifest.adapter, seed)
        answer = generator.generate(PROMPT, max_new_tokens=NEW_TOKENS, adapter=adapter)
        assert list(answer.token_ids) == _expected(case, adapter, tmp_path / str(seed))
        answers.append(answer)
    assert answers[0] != answers[1]


def test_text_is_that_of_its_tokens(case: Case) -> None:
    answer = TextGenerator(case[1], threads=1).generate(PROMPT, max_new_tokens=3)
    words = {number: word for word, number in VOCABULARY.items()}
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    assert answer.text.split() == [w for token in answer.token_ids if (w := words[token]) not in special]


def test_generation_stays_within_the_bundles_tokens(case: Case) -> None:
    answer = TextGenerator(case[1], threads=1).generate(PROMPT, max_new_tokens=1000)
    assert len(answer.token_ids) <= case[1].manifest.max_tokens


@pytest.mark.parametrize("prompt", ["", " ".join(WORDS[:1] * 17)])
def test_prompt_of_no_token_or_too_many_is_refused(case: Case, prompt: str) -> None:
    with pytest.raises(DataError, match="tokens of a prompt"):
        TextGenerator(case[1], threads=1).generate(prompt)


def test_adapter_of_another_bundle_is_refused(case: Case) -> None:
    spec = case[1].manifest.adapter
    other = initial_adapter(AdapterSpec(spec.modules, 1.0, 4), 2, np.random.default_rng(0))
    with pytest.raises(SpecMismatch):
        TextGenerator(case[1], threads=1).generate(PROMPT, adapter=other)


def test_classifier_generates_nothing(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleInvalid, match="generates no text"):
        TextGenerator(tiny_bundle)
