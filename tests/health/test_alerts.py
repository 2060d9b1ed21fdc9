"""An alert to the operators is posted once, or it is said why not."""

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.health.alerts import ALERT
from fleetprompt.health.vitals import look
from fleetprompt.settings import Settings
from fleetprompt.signals.read import Filter, list_signals
from fleetprompt.tenants.service import Tenant
from tests.doubles.mattermost import running_mattermost
from tests.packages.installed import Platform, connected


async def _ask(database: Database, tenant: Tenant, key: str) -> Directive:
    params = {"subject": "job:keep_house", "text": ":warning: **job:keep_house** fails."}
    async with database.tenant(tenant.schema) as session:
        directive, _ = await request_directive(
            session, tenant, ALERT, params, idempotency_key=key, actor=PLATFORM
        )
    return directive


async def test_an_alert_goes_where_the_operations_digest_goes_and_once(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    platform = Platform(database, settings, tenant)
    unconnected = await _ask(database, tenant, "alert:0")
    await platform.work()
    async with database.tenant(tenant.schema) as session:
        found = await session.get_one(Directive, unconnected.id)
        assert found.result == {
            "posted": False,
            "reason": "the operations tenant posts nowhere",
        }
    with running_mattermost() as mattermost:
        await connected(platform, mattermost)
        before = len(mattermost.posts)
        for _ in range(2):
            await _ask(database, tenant, "alert:1")
            await platform.work()
        posts = mattermost.posts[before:]
        assert [post.message for post in posts] == [":warning: **job:keep_house** fails."]
    async with database.tenant(tenant.schema) as session:
        told = await list_signals(session, Filter(type="operations.alerted"))
        assert [one.subject_id for one in told] == ["job:keep_house"]


async def test_vital_signs_say_what_they_mean(database: Database) -> None:
    found = await look(database)
    assert len({one.name for one in found}) == len(found)
    assert all(one.meaning and one.runbook and one.value >= 0 for one in found)
