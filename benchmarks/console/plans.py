"""Which tables the database reads as a whole to answer a route, by its own plans."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from sqlalchemy import Connection, Engine, event

from aggregator_service.app import create_app
from aggregator_service.service import Service

Asked = list[tuple[str, Any]]


def read_whole(
    service: Service, token: str, paths: Mapping[str, str], rows: Mapping[str, int]
) -> dict[str, list[str]]:
    """By path, the tables of 1,000 rows or more that are read from end to end; `rows` are tables' sizes."""
    found = {}
    for path in paths.values():
        asked = asyncio.run(_asked_for(service, token, path))
        whole = {table for own in asked for table in _whole(service.database.engine, *own)}
        found[path] = sorted(table for table in whole if rows.get(table, 0) >= 1000)
    return found


async def _asked_for(service: Service, token: str, path: str) -> Asked:
    transport = httpx.ASGITransport(create_app(service))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers) as client:
        with _noted(service.database.engine) as asked:
            (await client.get(path)).raise_for_status()
    return [own for own in asked if own[0].lstrip().upper().startswith("SELECT")]


@contextmanager
def _noted(engine: Engine) -> Iterator[Asked]:
    asked: Asked = []

    def note(_: Connection, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _whole(engine: Engine, statement: str, parameters: Any) -> set[str]:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            told = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
            nodes = _nodes(json.loads(told) if isinstance(told, str) else told)
            return {node["Relation Name"] for node in nodes if node["Node Type"].endswith("Seq Scan")}
        steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        told = [str(step.detail) for step in steps]
    # A walk in the order of its own numbers, of all rows, that ends with the page's last one.
    sorts = any("TEMP B-TREE" in own for own in told)
    if " LIMIT " in statement and " WHERE " not in statement and not sorts:
        return set()
    words = [own.split() for own in told]
    return {own[1] for own in words if own[0] == "SCAN" and "INDEX" not in own}


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    for own in plan if isinstance(plan, list) else [plan]:
        if isinstance(own, dict):
            if "Node Type" in own:
                yield own
            for part in own.values():
                if isinstance(part, list | dict):
                    yield from _nodes(part)
