"""What the ingest path is compared with: the usual FastAPI and SQLAlchemy ORM endpoint.

One pydantic model, one ORM object, one commit a request, on a table with the same columns and
indexes as ``signals``. It checks no key, no secret and no role, which is in its favour.
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fleetprompt.db.engine import quote_identifier
from fleetprompt.db.urls import sqlalchemy_url
from fleetprompt.ids import new_id
from fleetprompt.signals.models import Signal

engine = create_async_engine(
    sqlalchemy_url(os.environ["BENCH_DATABASE_URL"]),
    pool_size=32,
    connect_args={
        "options": f"-c search_path={quote_identifier(os.environ['BENCH_SCHEMA'])}",
    },
)
sessions = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


class SignalIn(BaseModel):
    """The envelope."""

    type: str = Field(max_length=128)
    source: str
    occurred_at: datetime
    subject_type: str | None = None
    subject_id: str | None = None
    dedupe_key: str | None = Field(default=None, max_length=512)
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class SignalOut(BaseModel):
    """The answer."""

    id: UUID
    status: str


async def session() -> AsyncIterator[AsyncSession]:
    """A session for one request."""
    async with sessions() as found:
        yield found


@app.post("/signals", status_code=201)
async def create(body: SignalIn, session: Annotated[AsyncSession, Depends(session)]) -> SignalOut:
    """Store one signal."""
    row = Signal(
        id=new_id(),
        type=body.type,
        source=body.source,
        occurred_at=body.occurred_at,
        subject_type=body.subject_type,
        subject_id=body.subject_id,
        dedupe_key=body.dedupe_key,
        data=body.data,
        context=body.metadata,
    )
    session.add(row)
    await session.commit()
    return SignalOut(id=row.id, status="created")
