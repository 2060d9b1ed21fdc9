"""Workers of digests that are made to be killed: a process that forks one for each line it reads.

A line is ``{"tenant": [id, slug, schema], "kill_at": n, "kill_after": seconds}``. The fork works off the
tenant's waiting directives. At the n-th suspension of the posting protocol, which is each point at which
a coroutine of it waits for the database or for Mattermost, it kills itself with SIGKILL; or it is killed
so many seconds after its start. The answer says how it ended and how often the protocol was suspended.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine, Generator
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import configure_mappers

from fleetprompt.db.engine import Database
from fleetprompt.directives.models import Directive
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import directive_types
from fleetprompt.outbound.delivery import Delivered, Delivery
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant

_deliver = Delivery.deliver


class Stepped:
    """Awaits a coroutine suspension by suspension, and dies at the one that is named."""

    suspensions = 0

    def __init__(self, coroutine: Coroutine[Any, Any, Delivered], kill_at: int | None) -> None:
        self._coroutine, self._kill_at = coroutine, kill_at

    def __await__(self) -> Generator[Any, Any, Delivered]:
        """Pass on what the coroutine waits for, and what comes back."""
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = (
                    self._coroutine.send(value) if error is None else self._coroutine.throw(error)
                )
            except StopIteration as done:
                result: Delivered = done.value
                return result
            Stepped.suspensions += 1
            if Stepped.suspensions == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            value = error = None
            try:
                value = yield waits_for
            except BaseException as caught:  # noqa: BLE001 - whatever comes goes on inside
                error = caught


async def _work(settings: Settings, http: OutboundClient, asked: dict[str, Any]) -> None:
    identity, slug, schema = asked["tenant"]
    tenant, kill_at = Tenant(UUID(identity), slug, schema), asked.get("kill_at")

    async def stepped(self: Delivery) -> Delivered:
        return await Stepped(_deliver(self), kill_at)

    Delivery.deliver = stepped  # type: ignore[method-assign]
    async with Database.application(settings) as database:
        async with database.tenant(tenant.schema) as session:
            await session.execute(
                text(
                    "UPDATE directives SET available_at = now(), changed_by = 'chaos'"
                    " WHERE state = 'pending' AND available_at > now()"
                )
            )
            waiting = list(
                await session.scalars(
                    select(Directive.id).where(Directive.state.in_(("pending", "running")))
                )
            )
        owner = f"chaos-{os.getpid()}"
        async with DirectiveRunner(database, settings, owner=owner, http=http) as runner:
            await runner.work(tenant, waiting)


def _forked(settings: Settings, http: OutboundClient, asked: dict[str, Any], told: int) -> None:
    """The fork's life; tells its suspensions at its end."""
    asyncio.run(_work(settings, http, asked))
    os.write(told, str(Stepped.suspensions).encode())


def main() -> None:
    """Fork for each line, and tell of it."""
    logging.disable(logging.CRITICAL)
    # What every fork needs, once.
    directive_types()
    configure_mappers()
    settings = Settings()
    http = OutboundClient(settings)
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            code = 1
            try:
                _forked(settings, http, asked, writer)
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        if (seconds := asked.get("kill_after")) is not None:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)  # not waited for yet, so the pid is still its own
        _, status = os.waitpid(pid, 0)
        suspensions = int(os.read(reader, 32) or b"0")
        os.close(reader)
        ended = os.waitstatus_to_exitcode(status)
        print(json.dumps({"ended": ended, "suspensions": suspensions}), flush=True)


if __name__ == "__main__":
    main()
