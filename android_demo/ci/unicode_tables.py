"""Write UnicodeTables.kt: which characters the `tokenizers` library takes for letters, marks, punctuation...

    python android_demo/ci/unicode_tables.py          write the file
    python android_demo/ci/unicode_tables.py --check  fail where it is not what the library says

The library asks Unicode 8 in one place and Unicode 16 in another, and each Android has a version of its own.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import Regex, normalizers, pre_tokenizers  # type: ignore[import-untyped]

FILE: Final = (
    Path(__file__).resolve().parents[1]
    / "sdk-core/src/main/kotlin/dev/hetlora/batching/tokenizer/UnicodeTables.kt"
)
EVERY: Final = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
HEAD: Final = """package dev.hetlora.batching.tokenizer

/**
 * What the `tokenizers` library takes characters for, written by `ci/unicode_tables.py`: it does not ask the
 * Unicode version of this machine, and neither may we. [CodePoints.of] and [LowerCase] read these.
 */
internal object UnicodeTables {
"""


def kept_apart(splitter: pre_tokenizers.PreTokenizer) -> set[str]:
    """The characters that a pre-tokeniser removes from between two letters."""
    text = "a" + "a".join(EVERY) + "a"
    return set(EVERY) - {character for piece, _ in splitter.pre_tokenize_str(text) for character in piece}


def matched(pattern: str) -> set[str]:
    """The characters that a regular expression matches."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed")
    return set(EVERY) - {c for piece, _ in splitter.pre_tokenize_str("".join(EVERY)) for c in piece}


def left_out(normalizer: normalizers.Normalizer) -> set[str]:
    """The characters that a normaliser removes, each by itself: marks have nothing to combine with."""
    return {character for character in EVERY if normalizer.normalize_str(character) == ""}


def bert(**options: bool) -> normalizers.Normalizer:
    """BERT's normaliser with these of its steps alone."""
    steps = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**(steps | options))


def punctuation() -> set[str]:
    """What BERT's pre-tokeniser makes a piece of its own: of three letters in a row it leaves one."""
    splitter = pre_tokenizers.BertPreTokenizer()
    pieces = splitter.pre_tokenize_str("a" + "a".join(EVERY) + "a")
    alone = {piece for piece, _ in pieces if len(piece) == 1} - {"a"}
    return alone | ({"a"} if len(splitter.pre_tokenize_str("bab")) == 3 else set())


def numeric() -> set[str]:
    """What the pre-tokeniser of digits makes a piece of its own."""
    splitter = pre_tokenizers.Digits(individual_digits=True)
    pieces = splitter.pre_tokenize_str("aa" + "aa".join(EVERY) + "aa")
    return {piece for piece, _ in pieces if len(piece) == 1}


def normalizable() -> set[str]:
    """What normal forms change, put into another order, or compose."""
    split = normalizers.NFKD()
    parts = {part for character in EVERY if (part := split.normalize_str(character)) != character}
    changed = {character for character in EVERY if split.normalize_str(character) != character}
    # Marks go before those of a higher class; U+0345 is the one of the highest.
    marks = {
        character
        for character in EVERY
        if any(split.normalize_str(mark + character) == character + mark for mark in "\u0301\u0345")
    }
    return changed | marks | set("".join(parts)) | {"\u0345"}


def ranges(characters: Iterable[str]) -> list[tuple[int, int]]:
    """Runs of code points, first and last of each."""
    found: list[tuple[int, int]] = []
    for code in sorted(map(ord, characters)):
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def base36(number: int) -> str:
    """As Kotlin's toInt(36) reads it."""
    text = DIGITS[abs(number) % 36]
    rest = abs(number) // 36
    while rest:
        text, rest = DIGITS[rest % 36] + text, rest // 36
    return "-" + text if number < 0 else text


def packed_ranges(characters: Iterable[str]) -> str:
    """For each run how far it begins after the last one's end, and how many more it holds."""
    end, numbers = 0, []
    for first, last in ranges(characters):
        numbers += [first - end, last - first]
        end = last
    return " ".join(map(base36, numbers))


def packed_lower_case() -> str:
    """Runs of capitals: the first, how many, from one to the next, and how far to the small letter."""
    lower = normalizers.Lowercase()
    runs: list[list[int]] = []
    for character in EVERY:
        small = lower.normalize_str(character)
        if small == character or len(small) > 1:  # only İ becomes two characters
            continue
        code, distance = ord(character), ord(small) - ord(character)
        first, count, step, same = runs[-1] if runs else (0, 0, 0, 0)
        gap = code - (first + (count - 1) * step)
        if runs and same == distance and gap in (1, 2) and (count == 1 or gap == step):
            runs[-1] = [first, count + 1, gap, distance]
        else:
            runs.append([code, 1, 1, distance])
    return " ".join(base36(number) for run in runs for number in run)


def constant(name: str, value: str) -> str:
    lines = textwrap.wrap(value, 100, drop_whitespace=False)
    quoted = " +\n".join(f'        "{line}"' for line in lines)
    return f"    const val {name} =\n{quoted}\n"


def source() -> str:
    """The file as it should be."""
    tables = {
        "LETTERS": packed_ranges(matched(r"\p{L}")),
        "NUMBERS": packed_ranges(matched(r"\p{N}")),
        "MARKS": packed_ranges(matched(r"\p{M}")),
        "NUMERIC": packed_ranges(numeric()),
        "WHITE_SPACE": packed_ranges(kept_apart(pre_tokenizers.WhitespaceSplit())),
        "CONTROLS": packed_ranges(left_out(bert(clean_text=True))),
        "NON_SPACING_MARKS": packed_ranges(left_out(bert(strip_accents=True))),
        "COMBINING_MARKS": packed_ranges(left_out(normalizers.StripAccents())),
        "PUNCTUATION": packed_ranges(punctuation()),
        "NORMALIZABLE": packed_ranges(normalizable()),
        "LOWER_CASE": packed_lower_case(),
    }
    return HEAD + "\n".join(constant(name, value) for name, value in tables.items()) + "}\n"


def main() -> int:
    if "--check" not in sys.argv[1:]:
        FILE.write_text(source())
    elif FILE.read_text() != source():
        print(f"{FILE.name} is not what this version of tokenizers says; run {Path(__file__).name}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
