from __future__ import annotations

import pickle

import pytest

from hetlora import errors
from hetlora.errors import (
    HetloraError,
    InputError,
    NotFound,
    RefusedError,
    ServiceFailed,
    UnavailableError,
    error_classes,
    faults_in_words,
)
from hetlora.messages.common import Problem, error_of, problem_of
from hetlora.messages.device import Failure

CLASSES = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HetloraError)
]
each_class = pytest.mark.parametrize("kind", CLASSES)


@each_class
def test_class_says_in_a_sentence_what_it_is(kind: type[HetloraError]) -> None:
    assert "__doc__" in vars(kind)
    assert (kind.__doc__ or "").splitlines()[0].endswith(".")


def test_codes_are_unique_over_the_tree() -> None:
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)
    assert all("code" in vars(kind) for kind in CLASSES)


@each_class
def test_code_and_status_can_go_over_the_wire(kind: type[HetloraError]) -> None:
    assert Failure(code=kind.code, message="").code == kind.code
    assert 400 <= kind.status < 600


@pytest.mark.parametrize(("family", "exit_code"), [(InputError, 3), (RefusedError, 4), (UnavailableError, 5)])
def test_exit_code_is_that_of_the_family(family: type[HetloraError], exit_code: int) -> None:
    assert {kind.exit_code for kind in CLASSES if issubclass(kind, family)} == {exit_code}


def test_message_says_what_got_and_expected() -> None:
    error = NotFound("no such run", got=7, expected="an id")
    assert str(error) == "no such run; got 7; expected an id"
    assert str(NotFound("no such run")) == "no such run"


def test_what_is_quoted_stays_one_short_line() -> None:
    error = NotFound("no such run", got="\n\x1b[31m" + "x" * 1000)
    assert error.got == "  [31m" + "x" * 493 + "…"
    assert len(error.got) == 500
    assert NotFound("again", got=error.got).got == error.got


def test_faults_of_a_schema_are_told_by_place_and_reason_but_never_by_input() -> None:
    faults = [
        {"loc": ("devices", 2, "name"), "msg": "too long", "input": "secret"},
        {"loc": (), "msg": "Invalid JSON"},
    ]
    assert faults_in_words(faults) == "devices.2.name: too long; Invalid JSON"
    assert faults_in_words(faults * 3).count(";") == 4  # six faults, of which five are told


def test_errors_survive_another_process() -> None:
    error = pickle.loads(pickle.dumps(NotFound("no such run", got=7, expected="an id")))
    assert (type(error), str(error)) == (NotFound, "no such run; got 7; expected an id")


@each_class
@pytest.mark.parametrize(("got", "expected"), [("a", "b"), (None, None), ("", "b")])
def test_error_survives_its_problem_document(
    kind: type[HetloraError], got: str | None, expected: str | None
) -> None:
    error = kind("what is wrong", got=got, expected=expected)
    read = error_of(Problem.model_validate_json(problem_of(error).model_dump_json()))
    assert (type(read), str(read), read.got, read.expected) == (kind, str(error), got, expected)


def test_problem_names_its_kind() -> None:
    problem = problem_of(NotFound("no such run"))
    assert problem.type == "urn:hetlora:error:not_found"
    assert problem.title == "No such object, run, round or assignment."
    assert (problem.status, problem.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("status", "kind"), [(503, ServiceFailed), (500, ServiceFailed), (418, RefusedError)]
)
def test_unknown_code_is_read_by_its_status(status: int, kind: type[HetloraError]) -> None:
    problem = Problem(type="about:blank", title="?", status=status, detail="no", code="of_a_later_version")
    assert type(error_of(problem)) is kind


def test_problem_with_unknown_members_is_read() -> None:
    text = problem_of(NotFound("no such run")).model_dump_json()[:-1] + ',"instance":"/runs/7"}'
    assert type(error_of(Problem.model_validate_json(text))) is NotFound


def test_error_classes_finds_every_class_by_its_code() -> None:
    found = error_classes()
    assert all(found[kind.code] is kind for kind in CLASSES)
