"""Base classes of the tables: the platform's own and each tenant's.

Tenant tables carry no schema: the search path of a tenant transaction gives it. The migrations
make the tables; a test compares them with these classes.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, MetaData, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

PLATFORM_SCHEMA = "fleetprompt"

_TYPES: dict[Any, Any] = {
    str: Text(),
    int: BigInteger(),
    datetime: DateTime(timezone=True),
    UUID: Uuid(),
    dict[str, Any]: JSONB(),
}


class PlatformBase(DeclarativeBase):
    """A table in schema ``fleetprompt``."""

    metadata = MetaData(schema=PLATFORM_SCHEMA)
    type_annotation_map: ClassVar[dict[Any, Any]] = _TYPES


class TenantBase(DeclarativeBase):
    """A table in every tenant's schema."""

    metadata = MetaData()
    type_annotation_map: ClassVar[dict[Any, Any]] = _TYPES


# The database's own time of the insert.
SetByDatabase = Annotated[datetime, mapped_column(server_default=func.now())]
