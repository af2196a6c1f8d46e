"""Text that is gone on with, under a small decoder; scored by minus the mean loss of held-out answers."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.tasks.answers import answer_scorer
from benchmarks.tasks.clients import ranked
from benchmarks.tasks.task import WIDEST, Logits, ScoreLogits, Task, adapter_score
from edge_sdk.batching.collation import TextCollation
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples import Example
from edge_sdk.runtimes.base import Batch
from export.bundle_writer import export_bundle
from hetlora.bundle import Bundle, open_bundle
from hetlora.errors import DataError
from hetlora.graph_names import IGNORED_LABEL, LABELS

HELD_OUT_SHARE: Final = 0.15
SCORED: Final = 400
LEAST_CHARACTERS: Final = 5000  # of a speaker
SUMMARY_TOKENS: Final = 192
TURN_TOKENS: Final = 48
INSTRUCTION_TOKENS: Final = 128
# Characters of a meeting: about a hundred tokens, so that the question and its answer have room too.
LONGEST_SPAN: Final = 400


def personas(data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """LoCoMo: one client a persona of a chat over many sessions; its last turns are scored."""
    return _task("personas", _last_held_out(personas_of(data)), data, scratch, TURN_TOKENS, seed)


def speakers(data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """Tiny Shakespeare: one client a speaker with much to say; their last turns are scored.

    The model was trained on this text: what counts is the gain over it.
    """
    return _task("speakers", _last_held_out(speakers_of(data)), data, scratch, TURN_TOKENS, seed)


def instructions(data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """Natural Instructions: one client a task, 68 to 520 rows; the model saw the training rows before."""
    return _task("instructions", tasks_of(data), data, scratch, INSTRUCTION_TOKENS, seed)


def summaries(data: Path, scratch: Path, clients: int, seed: int) -> Task:
    """QMSum: one client a meeting, which asks about it; scored on other meetings, and by RougeL at the end.

    The model was trained on this text: what counts is the gain over it.
    """
    held, scored = meetings(data, "val"), meetings(data, "test")
    task = _task("summaries", (held, scored), data, scratch, SUMMARY_TOKENS, seed)
    every = [example for own in scored for example in own]
    return replace(task, answers=answer_scorer(task.bundle, every))


Held = tuple[Sequence[Sequence[Example]], Sequence[Sequence[Example]]]


def _last_held_out(turns: Sequence[Sequence[Example]]) -> Held:
    """What each client trains on, and its last turns, which are scored."""
    kept = [max(1, round(HELD_OUT_SHARE * len(own))) for own in turns]
    both = list(zip(turns, kept, strict=True))
    return [own[:-count] for own, count in both], [own[-count:] for own, count in both]


def personas_of(folder: Path) -> list[list[Example]]:
    """What each persona answered, turn by turn: the turn before is the text, the answer the label.

    Raises:
        DataError: no chat can be read there.
    """
    found: list[list[Example]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            chat = json.loads(path.read_text(encoding="utf-8"))
            sessions = sorted((key for key in chat if re.fullmatch(r"session_\d+", key)), key=_number)
            turns = [(turn["speaker"], turn["text"]) for key in sessions for turn in chat[key]]
            found += [_answers(turns, speaker) for speaker in (chat["speaker_a"], chat["speaker_b"])]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path.name} is no chat of LoCoMo", got=error) from error
    if not found:
        raise DataError("no chats there", got=folder.name, expected="LoCoMo's JSON files")
    return found


def speakers_of(folder: Path, least_characters: int = LEAST_CHARACTERS) -> list[list[Example]]:
    """What each speaker who says so much answers, in the order of the plays.

    Raises:
        DataError: no play can be read there.
    """
    try:
        text = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt")))
    except (OSError, ValueError) as error:
        raise DataError("the plays cannot be read", got=error) from error
    parts = (block.partition(":\n") for block in text.split("\n\n"))
    turns = [(speaker.strip(), said) for speaker, colon, said in parts if colon]
    said: dict[str, int] = defaultdict(int)
    for speaker, words in turns:
        said[speaker] += len(words)
    found = [_answers(turns, speaker) for speaker in sorted(said) if said[speaker] >= least_characters]
    if not found:
        raise DataError("no plays there", got=folder.name, expected="a text of speakers and their turns")
    return found


def _answers(turns: Sequence[tuple[str, str]], speaker: str) -> list[Example]:
    return [
        Example(before, " " + words)
        for (_, before), (who, words) in pairwise(turns)
        if who == speaker and before.strip() and words.strip()
    ]


def tasks_of(folder: Path) -> Held:
    """What each client of Natural Instructions trains on, and its test.

    Raises:
        DataError: there are none.
    """
    numbers = sorted(int(path.stem.rpartition("_")[2]) for path in folder.glob("local_training_*.json"))
    if not numbers:
        raise DataError("no instructions there", got=folder.name, expected="local_training_<client>.json")
    held, scored = (
        [_instructed(folder / f"local_{part}_{number}.json") for number in numbers]
        for part in ("training", "test")
    )
    return held, scored


def _instructed(path: Path) -> list[Example]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [Example(f"{row['instruction']}\n{row['input']}\n", f" {row['output']}") for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path.name} has no instructions", got=error) from error


def meetings(folder: Path, part: str) -> list[list[Example]]:
    """The questions that each meeting of a part of QMSum asks, with the turns that they are about.

    Raises:
        DataError: there are none.
    """
    found = [own for own in (_asked(path) for path in sorted(folder.glob(f"*/{part}/*.json"))) if own]
    if not found:
        raise DataError("no meetings there", got=folder.name, expected="QMSum's JSON files")
    return found


def _asked(path: Path) -> list[Example]:
    try:
        meeting = json.loads(path.read_text(encoding="utf-8"))
        turns = meeting["meeting_transcripts"]
        return [
            Example(f"{_spoken(turns, own['relevant_text_span'])}\n{own['query']}\n", f" {own['answer']}")
            for own in meeting["specific_query_list"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path.name} is no meeting of QMSum", got=error) from error


def _spoken(turns: Sequence[dict[str, str]], spans: Sequence[Sequence[str]]) -> str:
    chosen = [turn for first, last in spans for turn in turns[int(first) : int(last) + 1]]
    words = " ".join(f"{turn['speaker']}: {turn['content']}" for turn in chosen)
    return words[:LONGEST_SPAN]


def _number(key: str) -> int:
    return int(key.rpartition("_")[2])


def _task(name: str, held: Held, data: Path, scratch: Path, max_tokens: int, seed: int) -> Task:
    trained, scored = held
    model = data.parent.parent / "models" / "tiny-lm"
    if not model.is_dir():
        raise DataError(
            "no decoder there", got=model, expected="a folder models/tiny-lm beside that of the data sets"
        )
    folder = scratch / name
    if (folder / "manifest.json").is_file():
        bundle = open_bundle(folder)
    else:
        bundle = export_bundle(
            str(model),
            folder,
            task="text-generation",
            targets=("q_proj", "k_proj", "v_proj", "o_proj"),
            max_rank=WIDEST,
            max_tokens=max_tokens,
        )
    every = [example for own in scored for example in own]
    chosen = [every[place] for place in np.random.default_rng(0).permutation(len(every))[:SCORED]]
    score = _scorer(bundle, chosen)
    return Task(bundle, model, ranked(trained, seed), adapter_score(bundle, score), score, "minus loss")


def _scorer(bundle: Bundle, turns: Sequence[Example]) -> ScoreLogits:
    collate = TextCollation(bundle.manifest.task, (), text_encoder(bundle))
    ordered = sorted(turns, key=lambda turn: len(turn.text) + len(turn.label))
    batches = [collate(ordered[start : start + 16]) for start in range(0, len(ordered), 16)]

    def score(logits_of: Callable[[Batch], Logits]) -> float:
        sums = [_loss_sum(batch, logits_of(batch)) for batch in batches]
        return -sum(loss for loss, _ in sums) / sum(count for _, count in sums)

    return score


def _loss_sum(batch: Batch, logits: Logits) -> tuple[float, int]:
    """The sum of the cross entropy over the tokens that count, in nats, and their number."""
    labels = batch[LABELS]
    counts = labels[:, 1:] != IGNORED_LABEL
    rows, wanted = logits[:, :-1][counts].astype(np.float64), labels[:, 1:][counts]
    rows -= rows.max(axis=1, keepdims=True)
    picked = rows[np.arange(len(wanted)), wanted]
    loss = float((np.log(np.exp(rows).sum(axis=1)) - picked).sum())
    assert math.isfinite(loss)
    return loss, len(wanted)
