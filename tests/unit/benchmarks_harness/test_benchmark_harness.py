from __future__ import annotations

import json
import os
import platform
import re
import sys
from pathlib import Path

import pytest

from benchmarks.harness import (
    Measured,
    begin,
    finish,
    machine,
    median_ratio,
    paired,
    peer_python,
    pinned,
    questions,
    run_measured,
)
from hetlora.cli.folders import writable
from hetlora.errors import DependencyMissing, HetloraError, SettingsError

MB = 1_000_000


def python(code: str) -> Measured:
    return run_measured([sys.executable, "-c", code])


def test_machine_says_what_figures_depend_on() -> None:
    found = machine()
    assert found.keys() == {"processor", "cores", "memory_bytes", "system", "python"}
    assert found["processor"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert found["memory_bytes"] > 100 * MB
    assert found["python"] == platform.python_version()


def test_output_of_a_measured_process_comes_back_whole() -> None:
    measured = python("print('first'); print('{\"loss\": 0.5}'); import sys; sys.stderr.write('warning')")
    assert measured.output.splitlines()[0] == "first"
    assert measured.last_json() == {"loss": 0.5}
    assert "warning" not in measured.output


def test_seconds_are_those_of_the_process() -> None:
    assert 0.3 <= python("import time; time.sleep(0.3)").seconds < 30


def test_peak_memory_is_the_childs_own_and_not_its_parents() -> None:
    ballast = b"x" * 300 * MB
    child = python(f"x = b'x' * {60 * MB}")
    assert 60 * MB < child.peak_rss_bytes < 200 * MB
    assert len(ballast) == 300 * MB


def test_failed_process_is_told_with_exit_code_and_its_last_words() -> None:
    with pytest.raises(HetloraError, match=r"python\S* -c failed; got exit code 3: the disk is full"):
        python("import sys; sys.stderr.write('the disk is full\\n'); sys.exit(3)")


def test_command_that_does_not_exist_is_told() -> None:
    with pytest.raises(HetloraError, match=r"no-such-command failed; .*FileNotFoundError"):
        run_measured(["/nowhere/no-such-command"])


def test_pairs_run_in_turn() -> None:
    order: list[str] = []

    def runner(name: str) -> Measured:
        order.append(name)
        return Measured(1.0, 1, name)

    pairs = paired(lambda: runner("ours"), lambda: runner("peer"), pairs=2)
    assert order == ["ours", "peer", "ours", "peer"]
    assert [(pair.ours.output, pair.peer.output) for pair in pairs] == [("ours", "peer")] * 2


def test_median_ratio_is_over_pairs() -> None:
    # 2/1, 9/3, 8/4 = 2, 3, 2; the ratio of the medians would be 8/3.
    assert median_ratio([2, 9, 8], [1, 3, 4]) == 2
    assert median_ratio([1, 3], [1, 1]) == 2  # the mean of the middle two, 1 and 3


def test_figures_without_their_counterpart_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([1, 2], [1])


def test_the_round_is_among_the_questions() -> None:
    assert questions()["round"].startswith("What does a round cost")


def test_every_question_is_one_sentence() -> None:
    assert all(re.fullmatch(r"[^?]+\?", text) for text in questions().values())


def test_pins_are_those_of_the_project() -> None:
    torch, peft = pinned("torch", "peft")
    assert torch == "torch==2.13.0"
    assert re.fullmatch(r"peft==[\d.]+", peft)


def test_package_without_a_pin_is_refused() -> None:
    with pytest.raises(DependencyMissing, match=r"not in constraints.txt; got \['flwr'\]"):
        pinned("torch", "flwr")


def test_result_goes_to_a_file_and_to_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print("a table for people")
    finish(
        "round",
        {"rounds": [{"seconds": 1.5}]},
        beginning=begin(),
        seed=7,
        packages=["numpy"],
        results=tmp_path / "results",
        arguments=["--rounds", "2"],
    )
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((tmp_path / "results" / "round.json").read_text()) == printed
    assert printed["rounds"] == [{"seconds": 1.5}]
    assert (printed["question"], printed["seed"]) == ("round", 7)
    assert printed["command"] == "hetlora bench round --rounds 2"
    assert printed["versions"].keys() == {"hetlora", "numpy"}
    assert printed["machine"] == machine()
    assert printed["load_average_before"] >= 0


def test_result_tells_nothing_of_where_things_lay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--bundle", f"{tmp_path}/tiny", f"--results={tmp_path}", "--model", "models/tiny"]
    finish("round", {}, beginning=begin(), seed=0, results=tmp_path, arguments=arguments)
    printed = json.loads(capsys.readouterr().out)
    assert (
        printed["command"]
        == f"hetlora bench round --bundle tiny --results={tmp_path.name} --model models/tiny"
    )
    assert str(tmp_path) not in (tmp_path / "round.json").read_text()


@pytest.mark.slow
def test_environment_of_a_peer_is_made_once_and_is_its_own(tmp_path: Path) -> None:
    made = peer_python("empty", [], tmp_path)
    marker = tmp_path / "empty" / "marker"
    marker.touch()
    assert peer_python("empty", [], tmp_path) == made
    assert marker.exists()
    prefix = run_measured([made, "-c", "import sys; print(sys.prefix)"]).output.strip()
    assert Path(prefix) == tmp_path / "empty"
    with pytest.raises(DependencyMissing, match=r"the peer empty cannot be installed: \./nothing-here\.whl"):
        peer_python("empty", ["./nothing-here.whl"], tmp_path)


def test_folder_that_cannot_be_written_is_refused_before_hours_of_work(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")

    assert writable(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert (tmp_path / "new" / "folder").is_dir()
    with pytest.raises(SettingsError, match="the folder cannot be written"):
        writable(tmp_path / "a file" / "folder")
