"""Compare the versions of constraints.txt with known vulnerabilities; `make check` runs this.

Exit status 1 for a vulnerability that is not in the list of ignored ones. Where no source of vulnerabilities
can be had, standard error says so loudly and the status is 0: a check must not depend on another's server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

HERE: Final = Path(__file__).parent
# Vulnerabilities of this version are known for years: who tells of none of them (a mirror without that part
# of the index, a proxy that answers everything) is not believed about other versions either.
KNOWN_BAD: Final = "jinja2==2.4.1"
TIMEOUT_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source says: findings by pip-audit's lines, and the versions that it does not know."""

    findings: Sequence[dict[str, Any]]  # name, version, vulns
    unknown: Sequence[str]


class SourceFailed(Exception):
    """A source of vulnerabilities that cannot be had."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=Path, default=HERE.parent / "constraints.txt")
    parser.add_argument("--ignored", type=Path, default=HERE / "ignored-vulnerabilities.toml")
    parser.add_argument("--osv-url", help="ask this address alone, which speaks as OSV's API does")
    options = parser.parse_args()
    ignored = read_ignored(options.ignored)
    sources = {"OSV": ["osv"], "PyPI": ["pypi"]}
    if options.osv_url is not None:
        sources = {options.osv_url: ["osv", "--osv-url", options.osv_url]}
    reached = False
    for name, source in sources.items():
        try:
            check(source)
            reached = True
            answer = ask(source, options.versions.read_text(encoding="utf-8"), ignored)
        except SourceFailed as error:
            print(f"audit: {name}: {error}", file=sys.stderr)
            continue
        return tell(name, answer)
    if reached:  # so it is not for want of a way to it
        return 1
    print(
        "audit: NOTHING WAS AUDITED: no source of vulnerabilities can be had from here. "
        "Run `make check` where one can.",
        file=sys.stderr,
    )
    return 0


def read_ignored(path: Path) -> list[str]:
    """The ids that are let pass, each with its reason and the day from which on."""
    ids = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("ignored", []):
        complete = entry.keys() == {"id", "since", "reason"} and type(entry["since"]) is date
        if not complete or not entry["id"] or not entry["reason"]:
            sys.exit(f"audit: {path}: {entry}: expected id, since (a date) and reason")
        ids.append(entry["id"])
    return ids


def check(source: Sequence[str]) -> None:
    """Raise SourceFailed for a source that does not tell of vulnerabilities that are known to be there."""
    if not ask(source, KNOWN_BAD).findings:
        raise SourceFailed(f"knows no vulnerability of {KNOWN_BAD}, so it is not believed of others")


def ask(source: Sequence[str], versions: str, ignored: Iterable[str] = ()) -> Answer:
    """What pip-audit finds with one source.

    Raises:
        SourceFailed: it does not answer.
    """
    with TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(versions, encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements)]
        command += [
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--desc",
            "off",
            "--progress-spinner",
            "off",
        ]
        command += ["--cache-dir", folder, "--vulnerability-service", *source]
        command += [word for vulnerability in ignored for word in ("--ignore-vuln", vulnerability)]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SourceFailed(f"no answer in {TIMEOUT_SECONDS} s") from error
    try:
        packages = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        last = ended.stderr.strip().splitlines()[-1:]
        raise SourceFailed(f"pip-audit ended with status {ended.returncode}: {' '.join(last)}") from error
    return Answer(
        findings=[package for package in packages if package.get("vulns")],
        unknown=[package["name"] for package in packages if "skip_reason" in package],
    )


def tell(name: str, answer: Answer) -> int:
    """Print what was found, and return the exit status."""
    for package in answer.findings:
        for vulnerability in package["vulns"]:
            ids = ", ".join([vulnerability["id"], *vulnerability.get("aliases", [])])
            mended = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(
                f"audit: {package['name']} {package['version']}: {ids}; mended in {mended}", file=sys.stderr
            )
    if answer.unknown:
        print(
            f"audit: NOT AUDITED, as {name} does not know them: {', '.join(answer.unknown)}", file=sys.stderr
        )
    if answer.findings:
        return 1
    print(f"audit: no known vulnerability, says {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
