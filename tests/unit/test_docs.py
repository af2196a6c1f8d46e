"""The documents say what the code does."""

from __future__ import annotations

import errno
import re
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path
from typing import get_args

from edge_sdk.client import EdgeClient
from edge_sdk.session.visit import failure_of
from hetlora.cli.run_file import parse_run_file
from hetlora.errors import error_classes
from hetlora.messages.masking import SecureAggregation
from hetlora.messages.rules import AnyRule

ROOT = Path(__file__).parents[2]


def test_every_error_code_stands_in_the_protocol_with_its_status_exit_code_and_words() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d+) \| (\d+) \| (.+) \|$", text, flags=re.MULTILINE)

    documented = {code: (int(status), int(exit_code), words) for code, status, exit_code, words in rows}

    assert documented == {
        code: (kind.status, kind.exit_code, (kind.__doc__ or "").splitlines()[0].removesuffix("."))
        for code, kind in error_classes().items()
    }


def test_codes_that_only_devices_have_stand_in_the_protocol() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    documented = re.findall(
        r"^\| `([a-z_]+)` \| [^|]+ \|$", text.partition("`Failure.code`")[2], re.MULTILINE
    )

    of_devices = (MemoryError(), RuntimeError("any other"))

    assert documented == [failure_of(error).code for error in of_devices]
    assert failure_of(OSError(errno.ENOSPC, "no space")).code in error_classes()


def test_every_rule_stands_in_the_page_of_the_rules() -> None:
    text = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z0-9_]+)`", text, flags=re.MULTILINE)

    names = [kind.model_fields["name"].default for kind in get_args(AnyRule)]

    assert sorted(documented) == sorted(names)


def test_every_table_of_a_new_device_stands_in_the_page_of_its_database(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "adr" / "0023-device-database.md").read_text(encoding="utf-8")
    section = page.partition("## What lies in it")[2].partition("And beside it")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    documented = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}

    EdgeClient("http://service.test", "weather", tmp_path, enrolment_token="token").close()
    with closing(sqlite3.connect(tmp_path / "device.sqlite")) as database:
        made = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()

    assert sorted(documented) == sorted(name for (name,) in made)


def test_run_file_of_the_page_of_secure_aggregation_asks_for_masks() -> None:
    page = ROOT / "docs" / "secure_aggregation.md"
    example = page.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]

    run = parse_run_file(example.encode(), Path("run.toml"))

    assert run.settings.secure_aggregation == SecureAggregation()


def test_every_path_in_the_readmes_tree_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.partition("## The tree")[2].split("```")[1]
    folders = [ROOT]  # the one that each depth of indentation is in
    for line in filter(None, tree.splitlines()):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        path = folders[depth] / name
        folders[depth + 1 :] = [path]
        assert path.exists(), f"{path.relative_to(ROOT)} is in the README's tree only"


def test_what_a_device_loads_is_pinned_and_a_part_of_what_its_extra_asks_for() -> None:
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    lines = (ROOT / "deploy" / "edge-requirements.txt").read_text().splitlines()
    bare = {line for line in lines if not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        re.match(r"[\w-]+", one)[0]
        for one in (*project["dependencies"], *project["optional-dependencies"]["edge"])
    }
    assert asked <= bare <= pinned


def headings_of(page: Path) -> set[str]:
    """The names by which links lead to the headings of a page."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def test_every_link_between_documents_leads_to_a_file_and_a_heading() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "android_demo" / "README.md"]
    lost = []
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            file, _, heading = link.partition("#")
            target = page.parent / file if file else page
            if ":" in link or (target.exists() and (not heading or heading in headings_of(target))):
                continue
            lost.append(f"{page.relative_to(ROOT)}: {link}")
    assert lost == []
