"""Clients of the application behind a real socket, and its refusals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from fastapi import FastAPI
from quick_server import listening

from aggregator_service.settings import Settings


@contextmanager
def served(app: FastAPI, settings: Settings) -> Iterator[httpx.Client]:
    """A client of the application, which runs in a thread of its own."""
    with (
        listening(app, settings) as url,
        httpx.Client(base_url=url, verify=False) as client,  # reading certificates takes 30 ms
    ):
        yield client


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, after a look at its shape."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"] == f"urn:hetlora:error:{body['code']}"
    assert body["title"]
    assert body["detail"]
    return answer.status_code, body["code"]
