"""What the page says in headless Chromium where a browser lacks something; there is no service behind it."""

from __future__ import annotations

from typing import Any

import pytest
from browser_client import look_at_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return look_at_page(tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("webAssembly", "this browser has no WebAssembly"),
        ("simd", "this browser's WebAssembly has no SIMD"),
        ("memory", "this browser gives WebAssembly no memory"),
        ("ed25519", "this browser does not sign with Ed25519"),
        ("cryptography", "this browser gives the page no cryptography"),
        ("indexedDb", "this browser keeps nothing for pages"),
        ("privateWindow", "this browser keeps nothing for pages"),
    ],
)
def test_page_says_before_it_is_started_what_its_browser_lacks(seen: Any, lacking: str, said: str) -> None:
    told = seen["lacking"][lacking]
    assert told.startswith(said)
    assert "; expected " in told


def test_conditions_that_the_browser_cannot_tell_are_off_and_say_why(seen: Any) -> None:
    def conditions(browser: str) -> dict[str, tuple[bool, str]]:
        return {
            own["name"]: (own["isDisabled"], own["description"])
            for own in seen[browser]
            if own["role"] == "checkbox"
        }

    charging, unmetered = "only while charging", "only on an unmetered network"
    # Chromium tells no kind of network on a desktop.
    no_network = (True, "this browser does not tell what network it is on")
    assert conditions("controls") == {charging: (False, ""), unmetered: no_network}
    no_battery = (True, "this browser does not tell whether it charges")
    assert conditions("untold") == {charging: no_battery, unmetered: no_network}
    assert conditions("told") == {charging: (False, ""), unmetered: (False, "")}


def test_all_controls_have_names_and_words_have_contrast_in_both_schemes(seen: Any) -> None:
    names = [own["name"] for own in seen["controls"] if own["role"] != "checkbox"]
    joining = ["Population", "Enrolment token", "Start", "Stop"]
    assert names == [*joining, "Examples", "From a file", "Keep", "A text", "Ask"]
    assert all(contrast >= 4.5 for contrast in seen["contrasts"].values()), seen["contrasts"]


def test_page_without_its_service_keeps_its_examples_and_tries_again_until_it_is_stopped(seen: Any) -> None:
    started = seen["started"]
    assert "not one of a hetlora service" in started["said"]
    assert started["count"] == "2 kept"  # nobody pressed Keep
    assert started["focus"] == "stop"
    assert started["canStart"] is True


def test_page_that_was_stopped_in_its_start_stays_so_when_it_is_loaded_anew(seen: Any) -> None:
    assert seen["isAtWorkAgain"] is False


def test_page_that_is_refused_does_not_ask_again_by_itself(seen: Any) -> None:
    assert "no such device" in seen["refused"]["said"]
    assert seen["refused"]["before"] > 0
    assert seen["refused"]["after"] == 0


def test_browser_that_gives_no_more_room_is_told_so(seen: Any) -> None:
    assert seen["withoutRoom"].startswith("this browser gives no more room")


def test_worker_that_ends_without_a_word_is_not_waited_for(seen: Any) -> None:
    assert "the worker that trains ended without a word" in seen["withoutWorker"]
