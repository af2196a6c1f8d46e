"""Listings in pages: the cursor is the key of the last row given out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from aggregator_service.service import Service
from aggregator_service.storage.tables import Base
from hetlora.errors import MalformedMessage
from hetlora.messages.common import Message, Page

Row = TypeVar("Row", bound=Base)
Item = TypeVar("Item", bound=Message)

Cursor = Annotated[
    str | None, Query(pattern=r"^[A-Za-z0-9._-]{1,128}$", description="`next_cursor` of the page before")
]
Limit = Annotated[int, Query(ge=1, le=500, description="Most items on the page")]
DEFAULT_LIMIT = 100
NewestFirst = Annotated[bool, Query(description="The newest first, instead of the oldest")]


def page_of(
    service: Service,
    table: type[Row],
    key: InstrumentedAttribute[Any],
    view: Callable[[Session, Row], Item],
    *conditions: ColumnElement[bool],
    cursor: str | None,
    limit: int,
    newest_first: bool = False,
) -> Page[Item]:
    """One page of a table, ordered by its key; errors as `page_of_views`."""
    return page_of_views(
        service,
        table,
        key,
        lambda session, rows: [view(session, row) for row in rows],
        *conditions,
        cursor=cursor,
        limit=limit,
        newest_first=newest_first,
    )


def page_of_views(
    service: Service,
    table: type[Row],
    key: InstrumentedAttribute[Any],
    views: Callable[[Session, Sequence[Row]], Sequence[Item]],
    *conditions: ColumnElement[bool],
    cursor: str | None,
    limit: int,
    newest_first: bool = False,
) -> Page[Item]:
    """One page of a table, ordered by its key, whose rows are looked at all at once.

    Raises:
        MalformedMessage: a cursor that no page of the table gave out.
    """
    query = select(table).where(*conditions).order_by(key.desc() if newest_first else key)
    if cursor is not None:
        last = _key_of(key, cursor)
        query = query.where(key < last if newest_first else key > last)
    with service.database.read() as session:
        rows = session.scalars(query.limit(limit + 1)).all()
        items = tuple(views(session, rows[:limit]))
        more = len(rows) > limit
        return Page[Item](items=items, next_cursor=str(getattr(rows[limit - 1], key.key)) if more else None)


def _key_of(key: InstrumentedAttribute[Any], cursor: str) -> int | str:
    """A cursor as the key that it was: PostgreSQL compares no number with a text."""
    if key.type.python_type is not int:
        return cursor
    if not re.fullmatch("[0-9]{1,18}", cursor):
        raise MalformedMessage("the cursor is none of this listing", got=cursor, expected="a number")
    return int(cursor)
