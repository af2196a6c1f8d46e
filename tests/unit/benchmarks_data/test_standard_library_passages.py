from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.data.library_parts import LIBRARY_PARTS
from benchmarks.data.passages import MAX_WORDS, MIN_WORDS, opening, standard_library_passages
from edge_sdk.examples import Example
from hetlora.errors import DataError

# Debian, Fedora and others ship these apart from the interpreter, or a later version drops them.
OFTEN_MISSING = {"tkinter", "turtle", "ensurepip", "distutils", "asyncore", "imp", "smtpd", "venv"}


@pytest.fixture(scope="module")
def passages() -> list[Example]:
    return standard_library_passages()


@pytest.fixture(scope="module")
def bare_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The running interpreter's library without what distributions leave out."""
    full = Path(re.__file__).parents[1]
    bare = tmp_path_factory.mktemp("library")
    wanted = {name for part in LIBRARY_PARTS for name in part.modules} - OFTEN_MISSING | {"pydoc_data"}
    for name in wanted:
        for entry in (full / name, full / f"{name}.py"):
            if entry.exists():
                (bare / entry.name).symlink_to(entry)
    return bare


def write(library: Path, module: str, *docstrings: str) -> None:
    functions = (f"def name{number}():\n    {text!r}\n" for number, text in enumerate(docstrings))
    (library / f"{module}.py").write_text("\n".join(functions))


def test_every_part_is_well_filled(passages):
    counts = Counter(passage.label for passage in passages)
    assert list(counts) == [part.label for part in LIBRARY_PARTS]
    assert min(counts.values()) >= 120


def test_every_part_is_well_filled_without_what_distributions_leave_out(bare_library):
    counts = Counter(passage.label for passage in standard_library_passages(bare_library))
    assert len(counts) == len(LIBRARY_PARTS)
    assert min(counts.values()) >= 70


def test_no_text_occurs_twice_whatever_its_case_and_spaces(passages):
    keys = {re.sub(r"[\W_]+", "", passage.text.casefold()) for passage in passages}
    assert len(keys) == len(passages)


def test_passages_are_short_prose_on_one_line(passages):
    for passage in passages:
        assert MIN_WORDS <= len(passage.text.split()) <= MAX_WORDS + 12  # the heading comes on top
        assert ">>>" not in passage.text
        assert "\n" not in passage.text


def test_order_is_the_same_each_time(passages):
    assert standard_library_passages() == passages


def test_no_module_is_imported_or_executed():
    code = (
        "import sys; from benchmarks.data.passages import standard_library_passages;"
        "standard_library_passages(); print({'turtle', 'tkinter', 'antigravity', 'smtpd'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_passage_is_headed_by_the_names_of_class_and_function(tmp_path):
    (tmp_path / "statistics.py").write_text(
        "class NormalDist:\n"
        "    def inv_cdf(self):\n"
        "        'Return the value below which the given share of all samples lies, by bisection.'\n"
    )
    assert standard_library_passages(tmp_path) == [
        Example(
            "Normal Dist inv cdf: "
            "Return the value below which the given share of all samples lies, by bisection.",
            "mathematics",
        )
    ]


def test_a_text_under_two_labels_is_dropped_and_a_repeated_one_kept_once(tmp_path):
    shared = "This sentence of more than ten words is written in two modules."
    twice = "That sentence of more than ten words is written in one module twice."
    write(tmp_path, "statistics", shared, twice, twice.upper())
    write(tmp_path, "json", shared.replace(" ", "  "))
    texts = [passage.text for passage in standard_library_passages(tmp_path)]
    assert texts == [f"name1: {twice}"]


def test_topics_are_read_paragraph_by_paragraph(tmp_path):
    (tmp_path / "pydoc_data").mkdir()
    first = "The first paragraph says something about loops in ten plain words."
    second = "The second paragraph says something else about loops in plain words."
    topics = {"while": f"{first}\n\n{second}"}
    (tmp_path / "pydoc_data" / "topics.py").write_text(f"topics = {topics!r}\n")
    assert [(p.text, p.label) for p in standard_library_passages(tmp_path)] == [
        (first, "language reference"),
        (second, "language reference"),
    ]


def test_a_source_that_does_not_parse_is_passed_over(tmp_path):
    write(tmp_path, "json", "Encode a value as text in the way of the format's standard.")
    (tmp_path / "csv.py").write_text("def broken(:\n")
    (tmp_path / "wave.py").write_bytes(b"\0\xff")
    assert [passage.label for passage in standard_library_passages(tmp_path)] == ["archives and data formats"]


def test_a_folder_without_sources_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no sources; got .*; expected a folder with argparse\.py"):
        standard_library_passages(tmp_path)


def test_opening_ends_with_the_last_sentence_that_fits():
    # 10 words, then 8: 18 fit into 24, the next 8 do not.
    first = "One two three four five six seven eight nine ten."
    second = "One two three four five six seven eight."
    assert opening(f"{first} {second} {second}") == f"{first} {second}"


def test_opening_cuts_a_first_sentence_that_is_too_long():
    assert len(opening("word " * (MAX_WORDS + 5)).split()) == MAX_WORDS


@pytest.mark.parametrize(
    "document",
    [
        pytest.param("Return the sum of the two numbers.", id="too short"),
        pytest.param("x1 = f(2); y[3] = g(4) ; z += 5 ; a = {6: 7} ; b", id="code"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_no_prose_gives_no_passage(document):
    assert opening(document) == ""


def test_opening_leaves_out_examples_signatures_and_rules():
    document = """mean(data) -> number

    Return the arithmetic mean of the data that is handed in here.
    --------------------------------------------------------------

    >>> mean([1, 2, 3])
    2

    """
    assert opening(document) == "Return the arithmetic mean of the data that is handed in here."
