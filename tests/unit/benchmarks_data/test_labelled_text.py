from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.data.labelled_text import Dataset, load_labelled_text
from edge_sdk.examples import Example
from hetlora.errors import DataError

YES, NO = Example("all is well", "yes"), Example("nothing is", "no")
PAIRS = [["all is well", "yes"], ["nothing is", "no"]]
OBJECTS = [{"text": text, "intent": label, "id": 7} for text, label in PAIRS]


def load(folder: Path, name: str, content: str | bytes) -> Dataset:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_labelled_text(path)


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, name, content)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.csv", "text,label\nall is well,yes\nnothing is,no\n", id="csv"),
        pytest.param(
            "a.csv", "\ufeffid,Category,Text\r\n1,yes,all is well\r\n2,no,nothing is\r\n", id="csv-bom"
        ),
        pytest.param(
            "a.CSV", "\n".join(["intent,text", "yes,all is well", "", "no,nothing is"]), id="csv-blank"
        ),
        pytest.param("a.json", json.dumps(PAIRS), id="json-pairs"),
        pytest.param("a.json", json.dumps(OBJECTS), id="json-objects"),
        pytest.param("a.jsonl", "\n".join(map(json.dumps, [*PAIRS, ""][:2])) + "\n\n", id="jsonl-pairs"),
        pytest.param("a.jsonl", "\n".join(map(json.dumps, OBJECTS)), id="jsonl-objects"),
    ],
)
def test_each_kind_of_file_gives_its_examples(tmp_path, name, content):
    # One example of each label: none can be spared for a test.
    assert load(tmp_path, name, content) == Dataset([YES, NO], [])


def test_csv_text_may_hold_newlines_commas_and_quotes(tmp_path):
    data = load(tmp_path, "a.csv", 'text,label\n"one,\n""two""\nthree",yes\nnothing is,no\n')
    assert data.train[0].text == 'one,\n"two"\nthree'


def test_an_object_of_parts_gives_train_and_test_and_leaves_out_the_rest(tmp_path):
    parts = {"train": PAIRS, "test": PAIRS[:1], "val": PAIRS, "oos_train": [["what", "oos"]], "note": 3}
    assert load(tmp_path, "a.json", json.dumps(parts)) == Dataset([YES, NO], [YES])


def test_val_stands_in_for_a_missing_test_part(tmp_path):
    assert load(tmp_path, "a.json", json.dumps({"train": PAIRS, "val": PAIRS[1:]})) == Dataset(
        [YES, NO], [NO]
    )


def test_a_number_is_taken_for_a_label(tmp_path):
    assert load(tmp_path, "a.json", '[["one", 1], ["two", 2]]').labels == ["1", "2"]


def test_a_folder_gives_train_and_test(tmp_path):
    (tmp_path / "test.csv").write_text("text,category\nnothing is,no\n")
    (tmp_path / "categories.json").write_text('["yes", "no"]')
    assert load(tmp_path, "train.csv", "text,category\nall is well,yes\nnothing is,no\n").test == []
    assert load_labelled_text(tmp_path) == Dataset([YES, NO], [NO])


def test_a_folder_of_clinc150_gives_the_file_with_all_parts(tmp_path):
    (tmp_path / "domains.json").write_text('{"banking": ["yes", "no"]}')
    load(tmp_path, "data_full.json", json.dumps({"oos_val": [], "train": PAIRS, "test": PAIRS}))
    assert load_labelled_text(tmp_path) == Dataset([YES, NO], [YES, NO])


def test_without_a_test_part_a_fifth_of_each_label_is_drawn_by_the_seed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([[f"text {n}", "rare" if n % 10 == 0 else "common"] for n in range(100)]))
    data = load_labelled_text(path, seed=1)
    assert Counter(example.label for example in data.test) == {"common": 18, "rare": 2}
    assert len(data.train) == 80
    assert not set(data.train) & set(data.test)
    assert load_labelled_text(path, seed=1) == data
    assert load_labelled_text(path, seed=2) != data


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv cannot be read; got No such file .*; expected a file or"):
        load_labelled_text(tmp_path / "none.csv")


def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "a.csv").symlink_to(tmp_path / "a.csv")  # even root cannot open a link to itself
    with pytest.raises(DataError, match=r"a\.csv cannot be read; got Too many levels"):
        load_labelled_text(tmp_path / "a.csv")


def test_a_folder_without_examples_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"no labelled text in the folder .*; got an empty folder; expected train"
    ):
        load_labelled_text(tmp_path)


CSV = "text,label\nall is well,yes\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"\x89PNG\r\n\x1a\n\xff\xfe", "a.csv is not text; got invalid start byte; expected UTF-8"),
        ("a.csv", b"text,label\n\0\0,a\n", "a.csv is not text; got NUL characters; expected UTF-8"),
        ("a.json", b"\x80\x04\x95", "a.json is not text; got invalid start byte; expected UTF-8"),
        ("a.csv", "", "a.csv is empty; expected labelled text"),
        ("a.jsonl", " \n\n", "a.jsonl is empty; expected labelled text"),
        ("a.parquet", "PAR1", "kind of a.parquet; got .parquet; expected .csv or .json or .jsonl"),
        ("a.csv", "text;label\na;b\n", "columns of a.csv; got text;label; expected text and one of label,"),
        ("a.csv", "sentence,label\na,b\n", "columns of a.csv; got sentence, label; expected text and one of"),
        ("a.csv", "text,label\n", "labels in a.csv; got 0 in 0 training examples; expected at least 2"),
        (
            "a.csv",
            CSV + "so is this,yes\n",
            "labels in a.csv; got 1 in 1 training examples; expected at least 2",
        ),
        ("a.csv", CSV + ",no\n", "line 3 of a.csv has no text; got an empty one; expected a text"),
        ("a.csv", CSV + '"two\nlines",no\n  ,no\n', "line 5 of a.csv has no text; got an empty one"),
        ("a.csv", CSV + "nothing is,\n", "line 3 of a.csv has no label; got an empty one; expected a label"),
        ("a.csv", CSV + "well, no,no\n", "line 3 of a.csv; got 3 fields; expected 2 as in the header"),
        (
            "a.csv",
            CSV + '"open,no\n',
            "line 3 of a.csv is not CSV; got unexpected end of data; expected quoting",
        ),
        ("a.json", "{", "a.json is not JSON; got Expecting property name"),
        ("a.json", "[" * 100_000, "a.json is not JSON; got"),
        ("a.json", '{"yes": ["a"]}', "layout of a.json; got an object with yes; expected a list of examples"),
        ("a.json", "3", "layout of a.json; got int; expected a list of examples"),
        ("a.json", '[["a", "b"], "c"]', "example 2 of a.json; got str; expected [text, label]"),
        ("a.json", '[{"label": "b"}]', "example 1 of a.json has no text; got NoneType; expected a text"),
        ("a.json", '[["a", true]]', "example 1 of a.json has no label; got bool; expected a label"),
        ("a.json", '{"train": [["a"]]}', "example 1 of train of a.json; got list; expected [text, label]"),
        ("a.jsonl", '["a", "b"]\nc\n', "line 2 of a.jsonl is not JSON; got Expecting value"),
        ("a.jsonl", '["a", "b"]\n\n["", "c"]\n', "line 3 of a.jsonl has no text; got an empty one"),
        (
            "a.json",
            json.dumps({"train": PAIRS, "test": [["a", "maybe"]]}),
            "test labels in a.json; got maybe; expected labels of the training part",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, name, content, message):
    assert refusal(tmp_path, name, content).startswith(message)
