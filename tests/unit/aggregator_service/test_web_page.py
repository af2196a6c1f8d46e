"""The browser client's page, served from a folder that a setting names."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from service_operator import TOKEN
from service_server import problem, served
from waiting import wait_until

from aggregator_service.api import open_transfers
from aggregator_service.app import create_app
from aggregator_service.service import open_service
from aggregator_service.settings import Settings
from hetlora.errors import SettingsError


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>hetlora</title>")
    (folder / "main.js").write_text("export {};")
    (folder / "ort.wasm").write_bytes(b"\0asm\1\0\0\0")
    (folder / "main.js.map").write_text("{}")
    (tmp_path / "secret.html").write_text("not of the page")
    return folder


@contextmanager
def running(tmp_path: Path, page: Path | None, *, isolated: bool = True) -> Iterator[httpx.Client]:
    settings = Settings(
        data_dir=tmp_path / "data",
        port=0,
        operator_token=SecretStr(TOKEN),
        web_page_dir=page,
        web_page_isolated=isolated,
    )
    with served(create_app(open_service(settings)), settings) as client:
        yield client


def test_page_comes_with_its_types_and_a_policy_that_runs_nothing_else(tmp_path: Path, page: Path) -> None:
    with running(tmp_path, page) as http:
        index = http.get("/page/")
        types = {name: http.get(f"/page/{name}").headers["content-type"] for name in ("main.js", "ort.wasm")}
        root = http.get("/", follow_redirects=False)
    assert index.status_code == 200
    assert index.text == "<!doctype html><title>hetlora</title>"
    assert types == {"main.js": "text/javascript; charset=utf-8", "ort.wasm": "application/wasm"}
    policy = index.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'", "connect-src 'self'"} <= {*policy}
    assert "unsafe-inline" not in index.headers["content-security-policy"]
    assert index.headers["x-content-type-options"] == "nosniff"
    assert index.headers["cache-control"] == "no-cache"
    assert (root.status_code, root.headers["location"]) == (307, "/page/")


def test_page_is_isolated_unless_the_operator_says_no(tmp_path: Path, page: Path) -> None:
    with running(tmp_path, page) as http:
        script = http.get("/page/main.js").headers  # a worker's script needs them, too
    with running(tmp_path, page, isolated=False) as http:
        plain = http.get("/page/main.js").headers
    assert script["cross-origin-opener-policy"] == "same-origin"
    assert script["cross-origin-embedder-policy"] == "require-corp"
    assert "cross-origin-opener-policy" not in plain
    assert "cross-origin-embedder-policy" not in plain


def test_nothing_but_the_files_of_a_build_is_served(tmp_path: Path, page: Path) -> None:
    with running(tmp_path, page) as http:
        for path in ("main.js.map", "secret.html", "..%2fsecret.html", "%2e%2e/secret.html", "none.js"):
            assert problem(http.get(f"/page/{path}")) == (404, "not_found"), path


def test_page_that_is_built_anew_is_served_as_it_is_now(tmp_path: Path, page: Path) -> None:
    with running(tmp_path, page) as http:
        (page / "main.js").unlink()
        (page / "index.html").unlink()
        assert problem(http.get("/page/main.js")) == (404, "not_found")
        assert problem(http.get("/page/")) == (404, "not_found")
        (page / "main.js").write_text("export const newer = 1;")
        (page / "worker.js").write_text("export {};")
        assert http.get("/page/main.js").text == "export const newer = 1;"
        assert http.get("/page/worker.js").status_code == 200


@pytest.mark.parametrize(
    "name", ["folder.js", "a%00.js", f"{'a' * 300}.js", ".html", "%2fetc%2fhosts.html", "..js"]
)
def test_names_that_no_build_has_are_not_found(tmp_path: Path, page: Path, name: str) -> None:
    (page / "folder.js").mkdir()
    with running(tmp_path, page) as http:
        assert problem(http.get(f"/page/{name}")) == (404, "not_found")


def test_files_of_a_release_are_kept_for_good_and_the_index_is_asked_for_each_time(
    tmp_path: Path, page: Path
) -> None:
    release = page / "0123456789abcdef"
    release.mkdir()
    (release / "main.js").write_text("export {};")
    (page / "else").mkdir()
    (page / "else" / "main.js").write_text("not of a release")
    with running(tmp_path, page) as http:
        kept = http.get(f"/page/{release.name}/main.js")
        index = http.get("/page/")
        assert (kept.status_code, index.status_code) == (200, 200)
        assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert kept.headers["cross-origin-embedder-policy"] == "require-corp"
        assert index.headers["cache-control"] == "no-cache"
        for path in (
            "else/main.js",
            f"{release.name}/none.js",
            f"{release.name}/..%2findex.html",
            "../main.js",
        ):
            answer = http.get(f"/page/{path}")
            assert problem(answer) == (404, "not_found"), path
            assert "immutable" not in answer.headers.get("cache-control", "")


@pytest.mark.parametrize("limit", ["MOST_PAGE_FILES", "MOST_PAGE_FILES_OF_ADDRESS"])
def test_few_large_files_of_the_page_are_sent_at_a_time(
    tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(open_transfers, limit, 2)
    (page / "ort.wasm").write_bytes(bytes(32 * 1024**2))  # more than the buffers of a connection hold
    (page / "worker.js").write_bytes(b" " * 100_000)
    with running(tmp_path, page) as http, ExitStack() as opened:
        address = (http.base_url.host, http.base_url.port or 0)
        unread = [opened.enter_context(socket.create_connection(address)) for _ in range(2)]
        for connection in unread:
            connection.sendall(b"GET /page/ort.wasm HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert problem(http.get("/page/worker.js")) == (429, "too_many_requests")
        assert http.get("/page/main.js").is_success  # takes no place: it is sent at once
        for connection in unread:
            connection.close()
        wait_until(lambda: http.get("/page/worker.js").is_success)


def test_there_is_no_page_without_the_setting(tmp_path: Path) -> None:
    with running(tmp_path, None) as http:
        assert problem(http.get("/page/")) == (404, "not_found")


def test_file_that_did_not_change_is_not_sent_twice(tmp_path: Path, page: Path) -> None:
    with running(tmp_path, page) as http:
        first = http.get("/page/main.js")
        for known in (first.headers["etag"], f"W/{first.headers['etag']}"):
            again = http.get("/page/main.js", headers={"If-None-Match": known})
            assert (first.status_code, again.status_code, again.content) == (200, 304, b""), known


def test_heads_are_answered_and_the_page_is_found_without_its_last_slash(tmp_path: Path, page: Path) -> None:
    with running(tmp_path, page) as http:
        head = http.head("/page/main.js")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")
        assert http.get("/page", follow_redirects=False).headers["location"] == "/page/"


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_folder_without_a_page_stops_the_service(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    settings = Settings(data_dir=tmp_path / "data", port=0, web_page_dir=tmp_path / name)
    with pytest.raises(SettingsError, match="HETLORA_WEB_PAGE_DIR"):
        create_app(open_service(settings))
