"""What texts become under several tokenizer.json; clients in other languages hold the same file."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.batching.tokens import TextEncoder
from hetlora.graph_names import TOKEN_INPUTS
from hetlora.manifest import TensorInput

CONTRACT: dict[str, Any] = json.loads(Path(__file__).with_name("tokens.json").read_text())
TEXTS: dict[str, str] = {text["name"]: text["text"] * text["times"] for text in CONTRACT["texts"]}
INPUTS = [TensorInput(name=name, dtype="int64", shape=("batch", "tokens")) for name in TOKEN_INPUTS]


def summary(ids: list[int]) -> object:
    """Token numbers as the file has them: themselves, or the count and digest of many."""
    if len(ids) <= 48:
        return ids
    return {"count": len(ids), "sha256": hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()}


@pytest.mark.parametrize("case", CONTRACT["tokenizers"], ids=lambda case: str(case["name"]))
def test_each_text_becomes_the_tokens_of_the_file(case: dict[str, Any], tmp_path: Path) -> None:
    tokenizer_file = tmp_path / "tokenizer.json"
    tokenizer_file.write_text(json.dumps(case["tokenizer"]))
    encoder = TextEncoder(tokenizer_file, INPUTS, max_tokens=CONTRACT["max_tokens"])

    found = {}
    for name, text in TEXTS.items():
        framed, type_ids = encoder.framed(text)
        assert type_ids == [0] * len(framed)
        prompt = encoder.prompt_ids(text, room=CONTRACT["room"])
        found[name] = {"ids": summary(encoder.ids(text)), "framed": framed, "prompt": prompt}

    assert found == case["expected"]
    assert encoder.encode(["a", TEXTS["words"]])["input_ids"][0, -1] == case["pad_id"]


@pytest.mark.slow
def test_table_of_characters_is_what_the_library_says() -> None:
    script = Path(__file__).resolve().parents[2] / "android_demo" / "ci" / "unicode_tables.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
