"""The learning problems: who holds what, read from files as their authors wrote them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.tasks.intents import utterances
from benchmarks.tasks.opening import Name, open_task
from benchmarks.tasks.turns import meetings, speakers_of, tasks_of
from hetlora.errors import DataError

# Beside a checkout, or wherever the variable says; none of it is part of the project.
FOLDER = Path(os.environ.get("HETLORA_DATA_SETS", Path(__file__).parents[3].parent / "shared" / "data"))
PLAY = "Ann:\nWho is there?\n\nBob:\nNobody.\n\nAnn:\nThen come in.\n\nCid:\nHush!\n"


def test_speaker_answers_the_turn_before(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text(PLAY)

    (ann, bob) = speakers_of(tmp_path, least_characters=7)  # Cid says but five

    assert [(one.text, one.label) for one in ann] == [("Nobody.", " Then come in.")]
    assert [(one.text, one.label) for one in bob] == [("Who is there?", " Nobody.")]


def test_speakers_who_say_little_are_no_clients(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text(PLAY)

    with pytest.raises(DataError, match="no plays there"):
        speakers_of(tmp_path, least_characters=1000)


def test_utterance_is_labelled_by_scenario_and_intent(tmp_path: Path) -> None:
    head = "answerid;scenario;intent;answer_annotation;answer_from_anno;answer_from_user"
    rows = ('1;alarm;set;;wake me at five;"wake me; at five"', "2;alarm;set;;;nothing")
    (tmp_path / "alarm_set.csv").write_text("\n".join((head, *rows)))

    (one,) = utterances(tmp_path)  # the other has no text

    assert (one.text, one.label) == ("wake me at five", "alarm_set")


def test_each_task_is_a_client_with_its_own_test(tmp_path: Path) -> None:
    row = {"instruction": "Say it again.", "input": "Hello", "output": "Hello", "category": "x"}
    for part, count in (("training", 3), ("test", 1)):
        for number in (7, 11):
            (tmp_path / f"local_{part}_{number}.json").write_text(json.dumps([row] * count))

    held, scored = tasks_of(tmp_path)

    assert [len(own) for own in held] == [3, 3]
    assert [(one.text, one.label) for one in scored[0]] == [("Say it again.\nHello\n", " Hello")]


def test_question_comes_after_the_turns_that_it_is_about(tmp_path: Path) -> None:
    turns = [{"speaker": name, "content": name.lower()} for name in ("A", "B", "C")]
    asked = [{"query": "What?", "answer": "That.", "relevant_text_span": [["1", "2"]]}]
    (tmp_path / "Product" / "val").mkdir(parents=True)
    whole = {"meeting_transcripts": turns, "specific_query_list": asked}
    (tmp_path / "Product" / "val" / "1.json").write_text(json.dumps(whole))

    ((one,),) = meetings(tmp_path, "val")

    assert (one.text, one.label) == ("B: b C: c\nWhat?\n", " That.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "clients"),
    [
        ("intents", "banking77", 12),
        ("domains", "clinc150", 10),
        ("scenarios", "hwu64", 18),
        ("speakers", "tiny_shakespeare", 64),
        ("personas", "locomo", 20),
        ("instructions", "natural_instructions_40", 40),
        ("summaries", "qmsum", 35),
    ],
)
def test_task_is_opened_whole(name: Name, folder: str, clients: int, tmp_path: Path) -> None:
    if not (FOLDER / folder).is_dir():
        pytest.skip(f"no copy of {folder} in {FOLDER}; set HETLORA_DATA_SETS")

    task = open_task(name, FOLDER / folder, tmp_path, 12, seed=0)

    assert len(task.clients) == clients
    assert all(client.examples for client in task.clients)
    score = task.score(None)
    assert 0.4 < score < 0.8 if task.metric == "accuracy" else -6 < score < -2
