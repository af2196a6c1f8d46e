"""The console in headless Chromium, over a real service whose devices really train."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e_fleet import TinyFleet
from page_checks import faint_words, nameless_controls

from benchmarks.processes import COMMAND
from hetlora.messages.rollouts import RolloutCreate, RolloutSettings, RolloutStage

pytest.importorskip("nicegui")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def console(fleet: TinyFleet) -> Iterator[str]:
    """The address of a console of the fleet's service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([*COMMAND, "console", "--url", fleet.service.url, "--port", str(port)])
    try:
        for _ in range(300):
            try:
                httpx.get(f"{url}/login").raise_for_status()
                break
            except httpx.ConnectError:
                assert process.poll() is None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, started once."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A window of a browser that nobody has used."""
    context = chromium.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def keep(page: Any, tmp_path: Path) -> Any:
    """Take a picture; they stay in HETLORA_SCREENSHOTS, or in the test's folder."""
    folder = Path(os.environ.get("HETLORA_SCREENSHOTS", tmp_path / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        print(f"picture in {folder / f'{name}.png'}")

    return take


def sign_in(page: Any, console: str, token: str) -> None:
    """With the keyboard alone: the field has the focus, and Enter sends the form."""
    page.goto(console)
    playwright.expect(page.get_by_label("Operator key")).to_be_focused()
    page.keyboard.type(token)
    page.keyboard.press("Enter")


def token_of(fleet: TinyFleet) -> str:
    return (fleet.service.data_dir / "operator-token").read_text().strip()


def test_operator_creates_a_run_watches_a_round_commit_pauses_and_rolls_back(
    fleet: TinyFleet, console: str, page: Any, keep: Any
) -> None:
    sign_in(page, console, token_of(fleet))
    page.wait_for_url(f"{console}/")
    playwright.expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    keep("overview")

    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_label("Population").fill(next(iter(fleet.operator.populations())).name)
    page.get_by_label("Digest of the bundle").fill(fleet.bundle.digest)
    settings = page.get_by_label("Settings, as TOML")
    settings.fill("goal_count = 2\n")
    page.get_by_role("button", name="Create run").click()
    playwright.expect(page.get_by_role("alert").filter(has_text="max_rank")).to_be_visible()
    keep("run-refused")
    settings.fill(
        "rounds = 1000\ngoal_count = 2\nover_selection = 1.0\nmax_rank = 8\n"
        "training = {steps = 3, batch_size = 4, max_tokens = 16}\n"
    )
    page.get_by_role("button", name="Create run").click()
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Yes, start").click()
    for name in ("one", "two"):
        fleet.device(name)

    playwright.expect(page.get_by_role("cell", name="committed").first).to_be_visible(timeout=120_000)
    keep("run")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Yes, pause").click()
    playwright.expect(page.get_by_role("status").filter(has_text="paused")).to_be_visible(timeout=30_000)

    (run,) = fleet.operator.runs()
    assert run.state == "paused"
    assert run.rounds_committed >= 1
    keep("run-paused")
    version = _set_champion(console, page, keep)
    _roll_back(fleet, console, page, keep, version)
    page.goto(f"{console}/devices")
    page.get_by_role("cell", name="one", exact=True).wait_for()
    keep("devices")
    page.locator("td a").first.click()
    playwright.expect(page.get_by_role("region", name="Its assignments, newest first")).to_be_visible()
    keep("device")
    for name in ("quarantine", "audit"):
        page.goto(f"{console}/{name}", wait_until="networkidle")
        keep(name)
    with page.expect_download() as taken:
        page.get_by_role("button", name="Entries as CSV").click()
    assert "rollouts" in Path(taken.value.path()).read_text()


def _set_champion(console: str, page: Any, keep: Any) -> str:
    """Point an alias at the run's newest version, with a reason, and answer which it is."""
    page.goto(f"{console}/adapters", wait_until="networkidle")
    link = page.locator("td a").first
    version = str(link.text_content())
    link.click()
    page.get_by_role("button", name="Set alias").click()
    page.get_by_label("Reason").fill("the first that is any good")
    page.get_by_role("button", name="Set", exact=True).click()
    playwright.expect(page.get_by_role("status").filter(has_text="champion")).to_be_visible()
    keep("adapter")
    page.goto(f"{console}/adapters", wait_until="networkidle")
    playwright.expect(page.get_by_role("cell", name="the first that is any good")).to_be_visible()
    keep("adapters")
    return version


def _roll_back(fleet: TinyFleet, console: str, page: Any, keep: Any, version: str) -> None:
    """Take a version back that is on its way to the fleet."""
    stage = RolloutStage(share=1.0, least_reports=1000)
    message = RolloutCreate(version=version, settings=RolloutSettings(stages=(stage,)))
    rollout_id = fleet.operator.rollouts.create(message).rollout_id
    fleet.operator.rollouts.move(rollout_id, "start")
    page.goto(f"{console}/rollouts", wait_until="networkidle")
    keep("rollouts")
    page.get_by_role("link", name=rollout_id).click()
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("button", name="Yes, roll back").click()
    playwright.expect(page.get_by_role("status").filter(has_text="rolled_back")).to_be_visible()
    keep("rollout")
    assert fleet.operator.rollouts.one(rollout_id).state == "rolled_back"


def test_page_needs_no_sideways_scroll_on_a_phone_and_ends_with_signing_out(
    fleet: TinyFleet, console: str, page: Any, keep: Any
) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    sign_in(page, console, token_of(fleet))
    page.wait_for_url(f"{console}/")
    run = fleet.start_run()
    first = fleet.operator.run(run.run_id).adapter_version
    for path in (
        *("", "runs", f"runs/{run.run_id}", "adapters", f"adapters/{first}", "rollouts"),
        *("devices", "quarantine", "audit"),
    ):
        page.goto(f"{console}/{path}", wait_until="networkidle")
        keep(f"phone-{path.split('/')[0] or 'overview'}{'-one' * path.count('/')}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert page.evaluate("document.documentElement.lang").startswith("en")
        assert page.locator("body.body--dark").count() == 1
        assert page.locator("main").count() == 1
        assert page.locator("h1").count() == 1

    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{console}/runs")
    assert page.url == f"{console}/login"


def test_words_too_faint_and_controls_without_a_name_are_found(page: Any) -> None:
    # On white, #777 has 4.48 and #767676 4.54; black at half its opacity is 127.5 of 255, which has 3.98.
    page.set_content(
        """<body style="background: white; color: black">
        <p style="color: #777">faint</p> <p style="color: #767676">clear</p>
        <p style="opacity: 0.5">half</p> <p style="color: #777; font-size: 24px">large</p>
        <p style="background: black; color: #fffc">white on black</p>
        <button disabled style="color: #ccc">off</button>
        <input id="bare" value="typed"> <label>Named <input id="named"></label> <input aria-label="told">
        <label><textarea id="typed">words that were typed name nothing</textarea></label>
        <button id="empty"></button> <a href="#">to</a> <div role="dialog" id="asks">words</div>"""
    )

    assert faint_words(page) == ["4.48: faint", "3.98: half"]
    nameless = [html.split('id="')[1].split('"')[0] for html in nameless_controls(page)]
    assert nameless == ["bare", "typed", "empty", "asks"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_have_contrast_and_controls_have_names_on_every_page(
    fleet: TinyFleet, console: str, page: Any, scheme: str
) -> None:
    for name in ("one", "two"):
        fleet.device(name)
    ended = fleet.finished(fleet.start_run(rounds=1))
    goes_on = fleet.start_run(rounds=1000, goal_count=3)  # which two devices never reach
    device = next(iter(fleet.operator.devices()))
    stages = {"stages": [{"share": 1, "least_reports": 1}]}
    asked = RolloutCreate.model_validate({"version": ended.adapter_version, "settings": stages})
    rollout = f"/rollouts/{fleet.operator.rollouts.create(asked).rollout_id}"
    page.emulate_media(color_scheme=scheme)
    faults = {}

    def check(what: str) -> None:
        faults[what] = faint_words(page) + nameless_controls(page)

    def ask(button: str) -> None:
        page.get_by_role("button", name=button).click()
        playwright.expect(page.locator(".q-dialog")).to_be_visible()
        page.wait_for_timeout(600)  # it fades in, and the label of its first field takes its colour
        check(button)

    page.goto(console, wait_until="networkidle")
    check("sign in")
    sign_in(page, console, token_of(fleet))
    page.wait_for_url(f"{console}/")
    links = page.get_by_role("navigation", name="Pages").get_by_role("link")
    playwright.expect(links.first).to_be_visible()
    paths = [link.get_attribute("href") for link in links.all()]
    assert "/runs" in paths
    adapter, run = f"/adapters/{ended.adapter_version}", f"/runs/{goes_on.run_id}"
    for path in (*paths, f"/runs/{ended.run_id}", f"/devices/{device.device_id}", run, adapter, rollout):
        page.goto(f"{console}{path}", wait_until="networkidle")
        assert page.locator("body.body--dark").count() == (scheme == "dark"), path
        check(path)
    for path, button in ((adapter, "Set alias"), (adapter, "Add note"), (run, "Stop")):
        page.goto(f"{console}{path}", wait_until="networkidle")
        ask(button)

    assert {what: found for what, found in faults.items() if found} == {}


def test_viewer_is_told_why_a_button_is_off_and_what_is_not_theirs(
    fleet: TinyFleet, console: str, page: Any
) -> None:
    from hetlora.messages.operators import OperatorRole

    sign_in(page, console, fleet.operator.create_key("eve", OperatorRole.VIEWER).token)
    page.wait_for_url(f"{console}/")
    page.goto(f"{console}/runs", wait_until="networkidle")
    playwright.expect(page.get_by_role("button", name="Create run")).to_be_disabled()
    playwright.expect(page.get_by_text("needs role operator")).to_be_visible()

    page.goto(f"{console}/audit", wait_until="networkidle")
    playwright.expect(page.get_by_role("alert")).to_contain_text("not_permitted")


def test_key_that_opens_nothing_is_told_on_the_form(fleet: TinyFleet, console: str, page: Any) -> None:
    sign_in(page, console, "nobody")

    playwright.expect(page.get_by_role("alert")).to_contain_text("authentication_failed")
