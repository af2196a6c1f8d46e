"""What docs/android.md and docs/browser.md show is code of the clients as they are: a drift fails."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from web_client import WEB, built_program

from benchmarks.clients.jvm import told_by
from hetlora.errors import DependencyMissing

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def compiled_typescript(folder: Path, document: str) -> tuple[int, str]:
    """What tsc says of the blocks, which import as files of `src` do: its exit status and words."""
    blocks = re.findall(r"^```ts\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        (folder / f"block{number}.ts").write_text(block)
    modules = WEB / "node_modules"
    options = {
        "rootDirs": [str(WEB / "src"), str(folder)],
        "typeRoots": [str(modules / "@types")],
    }
    settings = {
        "extends": str(WEB / "tsconfig.json"),
        "compilerOptions": options,
        "include": [f"{folder}/*.ts"],
    }
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    command = ["node", str(modules / "typescript" / "bin" / "tsc"), "--noEmit", "-p", str(folder)]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout


def test_kotlin_of_the_page_on_android_compiles_against_the_client(tmp_path: Path) -> None:
    document = (DOCS / "android.md").read_text()
    blocks = document.count("```kotlin\n")
    assert told_by("snippets.py")[-1] == f"{blocks} of android.md compiled"
    # And that it can fail: of a call that the client does not have.
    drifted = tmp_path / "drifted.md"
    drifted.write_text(document.replace("client.runOnce(", "client.runTwice("))
    assert drifted.read_text() != document
    with pytest.raises(DependencyMissing, match="does not compile"):
        told_by("snippets.py", str(drifted))


def test_typescript_of_the_page_on_browsers_compiles_against_the_client(tmp_path: Path) -> None:
    built_program("train")  # with what npm installs, or skipped
    document = (DOCS / "browser.md").read_text()
    assert compiled_typescript(tmp_path, document) == (0, "")
    # And that it can fail: of a call that the client does not have.
    drifted = document.replace("EdgeClient.open({", "EdgeClient.opened({")
    assert drifted != document
    status, said = compiled_typescript(tmp_path, drifted)
    assert status != 0
    assert "'opened' does not exist" in said
