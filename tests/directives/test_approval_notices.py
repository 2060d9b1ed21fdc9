"""Notices of approvals: asked for where an approval opens, posted once, and only while it waits."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from fleetprompt.db.engine import Database
from fleetprompt.directives import service as directives
from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.approvals.asking import ask_for_approval, settle_approval
from fleetprompt.directives.approvals.lapse import expire_due
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.notices.setting import (
    WantedNotices,
    read_notices,
    store_notices,
)
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms
from fleetprompt.directives.approvals.terms import NOTIFY
from fleetprompt.directives.models import Directive
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import find_type
from fleetprompt.errors import ConflictError, ForbiddenError, InvalidError
from fleetprompt.ids import new_id
from fleetprompt.packages import service as packages
from fleetprompt.packages.models import Installation
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.directives.approving import Office
from tests.doubles.mattermost import Post, RunningMattermost
from tests.packages.installed import ADMIN, Platform, connected


@dataclass
class Announced:
    """A tenant that is told of approvals in Mattermost."""

    office: Office
    platform: Platform
    mattermost: RunningMattermost
    installation: Installation
    wanted: WantedNotices = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = WantedNotices(self.installation.id)

    @property
    def posts(self) -> list[Post]:
        return self.mattermost.posts

    async def want(self, **changes: Any) -> None:
        self.wanted = replace(self.wanted, **changes)
        async with self.office.database.tenant(self.office.tenant.schema) as session:
            await store_notices(session, self.wanted, by=ADMIN)

    async def asked(self, notice: str | None = None) -> list[Directive]:
        """The directives of notices, in order."""
        async with self.office.database.tenant(self.office.tenant.schema) as session:
            found = await session.scalars(
                select(Directive).where(Directive.type == NOTIFY).order_by(Directive.id)
            )
            return [one for one in found if notice in (None, one.params["notice"])]

    async def post(self, notice: str = "opened", *, early: bool = False) -> list[dict[str, Any]]:
        """Work off the notices of this kind that are due, or all; their results."""
        waiting = [one for one in await self.asked(notice) if one.state == "pending"]
        if early:
            async with self.office.database.tenant(self.office.tenant.schema) as session:
                await session.execute(
                    text(
                        "UPDATE directives SET available_at = now(), changed_by = 'test'"
                        " WHERE id = ANY(:ids)"
                    ),
                    {"ids": [one.id for one in waiting]},
                )
        async with DirectiveRunner(
            self.office.database, self.office.settings, owner="notifier"
        ) as runner:
            await runner.work(self.office.tenant, [one.id for one in waiting])
        worked = {one.id for one in waiting}
        return [
            one.result or {"state": one.state, "error_kind": one.error_kind}
            for one in await self.asked(notice)
            if one.id in worked and one.state != "pending"
        ]


@pytest.fixture
async def announced(
    database: Database, settings: Settings, tenant: Tenant, mattermost: RunningMattermost
) -> Announced:
    platform = Platform(database, settings, tenant)
    installation = await connected(platform, mattermost)
    made = Announced(Office(database, settings, tenant), platform, mattermost, installation)
    await made.want()
    return made


async def test_who_asks_for_what_until_when_and_who_may_decide_with_a_link_that_only_shows(
    announced: Announced,
) -> None:
    office = announced.office
    office.policy = ApprovalPolicy(approvals=2, proposer_may_approve=False)
    admin, other = await office.person("admin"), await office.person("admin")
    approval = await office.ask(admin, words="hello")
    await office.approve(approval, other)
    (result,) = await announced.post()
    assert result["posted"] is True
    (post,) = announced.posts
    until = f"{approval.expires_at:%Y-%m-%d %H:%M} UTC"
    for told in (
        "Waits for approval: `test.send`",
        until,
        "It takes 2 approvals, 1 of them given, by people who are admin or owner, "
        "but nobody who proposed it.",
        "- `words`: `hello`",
        f"({office.settings.api_url}/console/approvals/{approval.id})",
    ):
        assert told in post.message, post.message
    # The proposer is told by address, as text that notifies nobody.
    assert "@\u200bexample.org" in post.message
    assert post.message.count("](") == 1, "a link that acts could be followed by a scanner"
    assert (post.mentions.pings, post.mentions.possible) == ([], ())
    (entry,) = await announced.platform.ledger()
    assert (entry.state, entry.dedupe_key) == ("posted", f"approval_notice:{approval.id}:1")
    assert entry.correlation_id == "corr-1"
    assert "approval.notified" in [
        kind for kind, _ in await announced.platform.signals("approval.")
    ]


async def test_a_notice_is_asked_for_with_the_approval_or_not_at_all(announced: Announced) -> None:
    office = announced.office
    with pytest.raises(RuntimeError, match="undone"):
        async with office.database.tenant(office.tenant.schema) as session:
            await directives.request_directive(
                session, office.tenant, "test.send", {"to": "a", "words": "b"},
                idempotency_key="k", actor=ADMIN, types=office.types,
            )  # fmt: skip
            raise RuntimeError("undone")
    assert await announced.asked() == []
    approval = await office.ask(key="k")
    (notice,) = await announced.asked("opened")
    assert notice.idempotency_key == f"approval_notice:{approval.id}:1"
    assert (notice.state, notice.actor, notice.actor_role) == ("pending", "platform", "platform")
    await office.ask(key="k")
    assert len(await announced.asked("opened")) == 1


async def test_every_new_version_is_told_of_and_the_old_one_no_more(announced: Announced) -> None:
    office = announced.office
    admin = await office.person("admin")
    first = await office.ask()
    second = await office.edit(first, admin, words="goodbye")
    async with office.database.tenant(office.tenant.schema) as session:
        await change_terms(
            session, office.types["test.send"], required=True, policy=ApprovalPolicy(approvals=2),
            by=Actor("user:olga", "owner"),
        )  # fmt: skip
    assert [one.idempotency_key.rsplit(":", 1)[1] for one in await announced.asked("opened")] == [
        "1", "2", "3",
    ]  # fmt: skip
    results = await announced.post()
    assert [one["posted"] for one in results] == [False, False, True]
    assert results[0]["reason"] == "the approval is superseded"
    (post,) = announced.posts
    assert ", version 3," in post.message
    assert "goodbye" in post.message
    assert (await office.read(second))[0].state == "superseded"


@pytest.mark.parametrize("enabled", [False, None])
async def test_nothing_is_asked_for_where_nobody_wants_to_be_told(
    announced: Announced, enabled: bool | None
) -> None:
    if enabled is None:
        await _sql(announced, "DELETE FROM approval_notices")
    else:
        await announced.want(enabled=False)
    await announced.office.ask()
    assert await announced.asked() == []


async def test_what_was_asked_for_before_it_was_switched_off_is_not_posted(
    announced: Announced,
) -> None:
    await announced.office.ask()
    await announced.want(enabled=False)
    assert await announced.post() == [{"posted": False, "reason": "notices are switched off"}]
    assert announced.posts == []


@pytest.mark.parametrize("how", ["approved", "rejected", "withdrawn", "expired", "over"])
async def test_what_no_longer_waits_is_not_posted(
    announced: Announced, owner: Database, how: str
) -> None:
    office = announced.office
    admin, approval = await office.person("admin"), await office.ask()
    if how == "approved":
        await office.approve(approval, admin)
    elif how == "rejected":
        await office.reject(approval, admin)
    elif how == "withdrawn":
        async with office.database.tenant(office.tenant.schema) as session:
            await directives.cancel(
                session, office.tenant, approval.directive_id, admin.actor, types=office.types
            )
    else:
        await _expire(announced, owner, approval, settle=how == "expired")
    (result,) = await announced.post()
    told = "has expired" if how == "over" else f"is {how}"
    assert result == {"posted": False, "reason": f"the approval {told}"}
    assert (announced.posts, await announced.platform.ledger()) == ([], [])


async def test_what_is_decided_between_two_attempts_is_not_posted(announced: Announced) -> None:
    office = announced.office
    approval = await office.ask()
    announced.mattermost.set(rate_limited=True)
    assert await announced.post() == []
    (waiting,) = await announced.asked("opened")
    assert (waiting.state, waiting.error_kind) == ("pending", "rate_limit")
    announced.mattermost.set(rate_limited=False)
    await office.approve(approval, await office.person("admin"))
    (result,) = await announced.post(early=True)
    assert result["reason"] == "the approval is approved"
    assert announced.posts == []


HOSTILE: dict[str, Any] = {
    "to": "@all <!here> @channel `@here` <https://evil.test|click> ![x](https://evil.test/p.png)",
    "words": "one\n# two\n|a|b|\n```\n@all\n" + "x" * 5000,
}


async def test_traps_14_and_15_no_param_mentions_links_or_breaks_out(announced: Announced) -> None:
    office = announced.office
    await office.ask(**HOSTILE)
    await announced.post()
    (post,) = announced.posts
    assert (post.mentions.pings, post.mentions.possible) == ([], ())
    assert len(post.message) < 1200
    assert "x" * 200 not in post.message
    lines = [line for line in post.message.splitlines() if line.startswith("#")]
    assert len(lines) == 1, "a param made a heading"
    assert post.message == post.original, "the server found something to rewrite"


async def test_a_value_that_looks_like_a_secret_is_left_out(announced: Announced) -> None:
    """Handlers' requests are not screened when they are made; a notice still gives nothing away."""
    office = announced.office
    approval = await office.ask()
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"
    params = {"password": "hunter2hunter2", "note": key, "plain": "said aloud"}
    await _replace_by(announced, approval, params)
    await announced.post()
    (post,) = announced.posts
    assert "hunter2" not in post.message
    assert "MIIEvQ" not in post.message
    assert post.message.count("left out: looks like a secret") == 2
    assert "said aloud" in post.message


@pytest.mark.parametrize(
    ("terms_seconds", "before", "due_in"),
    [(7200, 3600, 3600), (3 * 24 * 3600, 3600, 71 * 3600), (600, 3600, 300), (600, None, None)],
)
async def test_one_reminder_comes_before_it_expires_in_the_middle_at_the_latest(
    announced: Announced, terms_seconds: int, before: int | None, due_in: int | None
) -> None:
    await announced.want(remind_before_seconds=before)
    announced.office.policy = ApprovalPolicy(expires_after_seconds=terms_seconds)
    approval = await announced.office.ask()
    reminders = await announced.asked("reminder")
    if due_in is None:
        assert reminders == []
        return
    (reminder,) = reminders
    expected = approval.expires_at - timedelta(seconds=terms_seconds - due_in)
    assert abs(reminder.available_at - expected) < timedelta(seconds=5)
    assert await announced.post("reminder") == []
    await announced.post("reminder", early=True)
    (post,) = announced.posts
    assert "Still waits for approval" in post.message


async def test_nobody_is_reminded_of_what_is_decided(announced: Announced) -> None:
    approval = await announced.office.ask()
    await announced.office.approve(approval, await announced.office.person("admin"))
    (result,) = await announced.post("reminder", early=True)
    assert result["posted"] is False
    assert announced.posts == []


async def test_t17_the_same_notice_asked_for_twice_is_posted_once(announced: Announced) -> None:
    approval = await announced.office.ask()
    async with announced.office.database.tenant(announced.office.tenant.schema) as session:
        for _ in range(5):
            await directives.request_directive(
                session, announced.office.tenant, NOTIFY,
                {"notice": "opened", "approval_id": str(approval.id)},
                idempotency_key=new_id().hex, actor=PLATFORM,
            )  # fmt: skip
    await announced.post()
    await announced.post(early=True)  # those that found another sending
    assert {one.state for one in await announced.asked("opened")} == {"succeeded"}
    assert len(announced.posts) == 1


@pytest.mark.parametrize(
    ("fault", "state", "kind", "posts"),
    [
        ({"fault": "reset_after_save"}, "unknown", "network", 1),
        ({"fault": "error_after_save"}, "unknown", "network", 1),
        ({"hook_deleted": True}, "failed", "auth", 0),
    ],
    ids=["t18-reset", "t18-error", "deleted"],
)
async def test_an_outcome_that_nobody_knows_is_visible_and_never_repeated(
    announced: Announced, fault: dict[str, Any], state: str, kind: str, posts: int
) -> None:
    approval = await announced.office.ask()
    announced.mattermost.set(**fault)
    assert await announced.post() == [{"state": state, "error_kind": kind}]
    (entry,) = await announced.platform.ledger()
    assert entry.state == ("unknown" if state == "unknown" else "rejected")
    announced.mattermost.set(fault="none", hook_deleted=False)
    async with announced.office.database.tenant(announced.office.tenant.schema) as session:
        await directives.request_directive(
            session, announced.office.tenant, NOTIFY,
            {"notice": "opened", "approval_id": str(approval.id)},
            idempotency_key="again", actor=PLATFORM,
        )  # fmt: skip
    assert await announced.post() == [{"state": state, "error_kind": kind}]
    assert len(announced.posts) == posts


async def test_beyond_the_number_within_an_hour_one_summary_stands_for_the_rest(
    announced: Announced,
) -> None:
    await announced.want(most_per_hour=3)
    for number in range(8):
        await announced.office.ask(words=f"letter {number}")
    results = await announced.post()
    assert [one["posted"] for one in results].count(True) == len(announced.posts) == 3
    assert {one["reason"] for one in results if not one["posted"]} == {
        "3 were posted within the hour: summed up"
    }
    (summary,) = await announced.asked("summary")
    oldest = min(entry.created_at for entry in await announced.platform.ledger())
    assert summary.available_at == oldest + timedelta(hours=1)
    await announced.post("summary", early=True)
    assert len(announced.posts) == 4
    message = announced.posts[-1].message
    assert "8 directives wait for approval" in message
    assert "5 of them had no notice of their own" in message
    assert f"({announced.office.settings.api_url}/console/approvals)" in message
    await _sql(announced, "UPDATE outbound_messages SET created_at = now() - interval '61 minutes'")
    await announced.office.ask(words="after the hour")
    assert (await announced.post())[-1]["posted"] is True


async def test_no_summary_of_nothing(announced: Announced) -> None:
    await announced.want(most_per_hour=1)
    admin = await announced.office.person("admin")
    approvals = [await announced.office.ask(words=f"{number}") for number in range(3)]
    await announced.post()
    for approval in approvals:
        await announced.office.approve(approval, admin)
    (result,) = await announced.post("summary", early=True)
    assert result == {"posted": False, "reason": "nothing waits"}
    assert len(announced.posts) == 1


async def test_notices_need_no_approval_and_tell_of_none_of_their_own(announced: Announced) -> None:
    kind = find_type(NOTIFY)
    assert kind.approval is None
    async with announced.office.database.tenant(announced.office.tenant.schema) as session:
        with pytest.raises(ConflictError, match="cannot wait"):
            await change_terms(
                session, kind, required=True, policy=ApprovalPolicy(),
                by=Actor("user:olga", "owner"),
            )  # fmt: skip
    await announced.office.ask()
    await announced.post()
    assert [one.params["notice"] for one in await announced.asked()] == ["opened", "reminder"]
    # The database asks for notices by itself; what it leaves to defaults is the type's own.
    assert {one.max_attempts for one in await announced.asked()} == {kind.retry.max_attempts}


async def test_a_connection_that_is_gone_fails_visibly_and_so_does_nothing_else(
    announced: Announced,
) -> None:
    await announced.office.ask()
    await _sql(announced, "DELETE FROM integration_credentials")
    assert await announced.post() == [{"state": "failed", "error_kind": "auth"}]
    assert await announced.platform.ledger() == []


async def test_removing_the_installation_ends_the_notices(announced: Announced) -> None:
    office = announced.office
    await office.ask()
    async with office.database.tenant(office.tenant.schema) as session:
        asked = await packages.uninstall(session, office.tenant, announced.installation.id, ADMIN)
    async with DirectiveRunner(office.database, office.settings, owner="remover") as runner:
        await runner.work(office.tenant, [asked.id])
    async with office.database.tenant(office.tenant.schema) as session:
        assert await read_notices(session) is None
    assert await announced.post() == [{"posted": False, "reason": "notices are switched off"}]
    assert announced.posts == []
    await office.ask()
    assert len(await announced.asked("opened")) == 1


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"installation_id": UUID(int=1)}, "/installation_id"),
        ({"channel": "Town Square"}, "/channel"),
        ({"channel": "@ada"}, "/channel"),
        ({"remind_before_seconds": 59}, "/remind_before_seconds"),
        ({"most_per_hour": 0}, "/most_per_hour"),
        ({"most_per_hour": 101}, "/most_per_hour"),
    ],
    ids=str,
)
async def test_a_setting_that_cannot_work_is_refused(
    announced: Announced, changes: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        await announced.want(**changes)
    assert [one["pointer"] for one in refused.value.errors] == [pointer]


async def test_only_administrators_say_where_notices_go_and_it_must_be_connected(
    announced: Announced, database: Database, settings: Settings, new_tenant: Any
) -> None:
    async with database.tenant(announced.office.tenant.schema) as session:
        with pytest.raises(ForbiddenError):
            await store_notices(session, announced.wanted, by=Actor("user:max", "member"))
    other = Platform(database, settings, await new_tenant())
    unconnected = await other.install()
    for named in (unconnected.id, announced.installation.id):  # the second is another tenant's
        async with database.tenant(other.tenant.schema) as session:
            with pytest.raises(InvalidError, match="connected"):
                await store_notices(session, WantedNotices(named), by=ADMIN)


async def test_a_channel_of_their_own_is_used(announced: Announced) -> None:
    await announced.want(channel="#town-square")
    await announced.office.ask()
    (result,) = await announced.post()
    assert result["destination"].endswith("#town-square")
    (post,) = announced.posts
    assert post.channel_id == announced.mattermost.state.town_square.id


async def _sql(announced: Announced, statement: str, **values: Any) -> None:
    async with announced.office.database.tenant(announced.office.tenant.schema) as session:
        await session.execute(text(statement), values)


async def _expire(
    announced: Announced, owner: Database, approval: Approval, *, settle: bool
) -> None:
    office = announced.office
    async with owner.platform() as session:
        await session.execute(
            text(
                f'UPDATE "{office.tenant.schema}".approvals SET expires_at = now() WHERE id = :id'
            ),
            {"id": approval.id},
        )
    if settle:
        async with office.database.tenant(office.tenant.schema) as session:
            now: datetime = (await session.execute(text("SELECT now()"))).scalar_one()
            await expire_due(session, office.tenant, now, types=office.types)


async def _replace_by(announced: Announced, approval: Approval, params: dict[str, Any]) -> None:
    """Ask for the same under params that no model has checked, as a signal handler may."""
    office = announced.office
    async with office.database.tenant(office.tenant.schema) as session:
        old = await session.get_one(Approval, approval.id)
        directive = await session.get_one(Directive, approval.directive_id)
        directive.params, directive.changed_by = params, "test"
        await session.flush()
        await settle_approval(session, old, "superseded", settled_by="test")
        await ask_for_approval(
            session, directive, office.policy, proposed_by="package:x", version=2
        )
