"""An execution in the hands of the work that runs under it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from fleetprompt.db.engine import Database
from fleetprompt.executions import service

LINE_LIMIT = 1000


@dataclass
class RunningExecution:
    """What a handler says about its run: log lines at once, result and costs when it ends.

    ``result`` is what the execution's page shows; unset, the directive's own result is used.
    """

    database: Database
    tenant_schema: str
    id: UUID
    result: dict[str, Any] | None = None
    cost_usd: Decimal | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    lines: int = 0

    async def log(self, level: service.Level, message: str, **fields: Any) -> None:
        """Commit one line now, so that it is there whatever happens next; at most 1,000 a run."""
        self.lines += 1
        if self.lines > LINE_LIMIT:
            return
        if self.lines == LINE_LIMIT:
            level, message, fields = "warning", "further lines are left out", {}
        async with self.database.tenant(self.tenant_schema) as session:
            await service.log(session, self.id, level, message, **fields)

    async def keep(self, result: dict[str, Any]) -> None:
        """Commit what there is of the result now; a later attempt finds it, and may build on it."""
        self.result = result
        async with self.database.tenant(self.tenant_schema) as session:
            await service.keep_result(session, self.id, result)

    async def kept(self) -> dict[str, Any] | None:
        """What an earlier attempt kept."""
        async with self.database.tenant(self.tenant_schema) as session:
            return (await service.get(session, self.id)).result
