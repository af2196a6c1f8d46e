"""`make check` fails for a dependency with a known vulnerability, and is loud where it cannot know."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OLD_JINJA = ("jinja2", "2.4.1")  # which the audit knows to be bad
VULNERABLE = ("urllib3", "1.21")
Audit = Callable[..., subprocess.CompletedProcess[str]]


def vulnerability(name: str, vulnerability_id: str, alias: str, fixed: str) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": fixed}]
    affected = {
        "package": {"name": name, "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    return {"id": vulnerability_id, "aliases": [alias], "summary": "it is bad", "affected": [affected]}


KNOWN = {
    OLD_JINJA: vulnerability("jinja2", "PYSEC-2014-8", "CVE-2014-1402", "2.7.2"),
    VULNERABLE: vulnerability("urllib3", "PYSEC-2018-32", "CVE-2018-20060", "1.23"),
}


@contextmanager
def advisories(known: Mapping[tuple[str, str], dict[str, Any]]) -> Iterator[str]:
    """The address of a server that answers as OSV's does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = known.get((asked["package"]["name"], asked["version"]))
            body = json.dumps({} if found is None else {"vulns": [found]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Audits versions by what a server knows, with these vulnerabilities ignored."""

    def run(
        *versions: tuple[str, str], known: Mapping[tuple[str, str], Any] = KNOWN, ignored: str = ""
    ) -> subprocess.CompletedProcess[str]:
        constraints, ignored_file = tmp_path / "constraints.txt", tmp_path / "ignored.toml"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in versions))
        ignored_file.write_text(ignored)
        with advisories(known) as url:
            return command("--versions", constraints, "--ignored", ignored_file, "--osv-url", url)

    return run


def command(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_known_vulnerability_fails_and_is_named(audit: Audit) -> None:
    done = audit(("numpy", "2.4.6"), VULNERABLE)
    assert done.returncode == 1
    assert done.stderr == "audit: urllib3 1.21: PYSEC-2018-32, CVE-2018-20060; mended in 1.23\n"


def test_versions_of_which_nothing_is_known_pass(audit: Audit) -> None:
    done = audit(("numpy", "2.4.6"), ("urllib3", "2.8.0"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("audit: no known vulnerability")


def test_whole_list_of_versions_can_be_asked_about(audit: Audit) -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {name: version for name, _, version in (line.partition("==") for line in lines)}
    done = audit(*(pinned | dict([VULNERABLE])).items())
    assert done.returncode == 1
    assert done.stderr == "audit: urllib3 1.21: PYSEC-2018-32, CVE-2018-20060; mended in 1.23\n"


def test_list_that_cannot_be_read_fails(audit: Audit) -> None:
    done = audit(("numpy", "2.4.6"), ("numpy", "2.4.5"))
    assert done.returncode == 1
    assert "no known vulnerability" not in done.stdout


@pytest.mark.parametrize("name", ["PYSEC-2018-32", "CVE-2018-20060"])
def test_ignored_vulnerability_passes(audit: Audit, name: str) -> None:
    ignored = f'[[ignored]]\nid = "{name}"\nsince = 2026-11-21\nreason = "of tests"\n'
    assert audit(VULNERABLE, ignored=ignored).returncode == 0
    # The others stay what they are.
    assert audit(OLD_JINJA, ignored=ignored).returncode == 1


@pytest.mark.parametrize(
    "entry",
    [
        'id = "PYSEC-2018-32"',
        'id = "PYSEC-2018-32"\nsince = 2026-11-21',
        'id = "PYSEC-2018-32"\nsince = 2026-11-21\nreason = ""',
        'id = "PYSEC-2018-32"\nsince = "yesterday"\nreason = "of tests"',
    ],
)
def test_ignored_vulnerability_without_reason_and_date_is_refused(audit: Audit, entry: str) -> None:
    done = audit(("numpy", "2.4.6"), ignored=f"[[ignored]]\n{entry}\n")
    assert done.returncode == 1
    assert "expected id, since (a date) and reason" in done.stderr


def test_source_that_knows_nothing_is_not_believed(audit: Audit) -> None:
    done = audit(VULNERABLE, known={VULNERABLE: KNOWN[VULNERABLE]})
    assert done.returncode == 0
    assert "not believed" in done.stderr
    assert "NOTHING WAS AUDITED" in done.stderr


def test_source_that_is_not_there_is_told_loudly() -> None:
    with advisories(KNOWN) as url:
        pass  # nobody listens there any more
    done = command("--osv-url", url)
    assert done.returncode == 0
    assert "NOTHING WAS AUDITED" in done.stderr


def test_list_of_ignored_vulnerabilities_can_be_read(audit: Audit) -> None:
    ours = (ROOT / ".ci" / "ignored-vulnerabilities.toml").read_text()
    assert audit(("numpy", "2.4.6"), ignored=ours).returncode == 0
