"""Is this token good, and may it do what it is for? Asked without posting.

In the order in which things go wrong: the server answers and is Mattermost, the token is known, team
and channel exist, the account is a member and may read. Each answer says in plain words what to do.
"""

from fleetprompt.outbound.http import OutboundClient, OutboundError
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.mattermost.check import Check, Verdict
from fleetprompt.outbound.transports.mattermost.files import MAY_NOT_ATTACH, may_attach
from fleetprompt.outbound.transports.mattermost.rest import find_channel, who_am_i
from fleetprompt.outbound.transports.mattermost.server import Server, failure, refusal

_VERDICTS: dict[str, Verdict] = {
    "auth": "forbidden",
    "validation": "refused",
    "rate_limit": "rate_limited",
    "unknown": "no_clear_answer",
}


async def check_token(
    client: OutboundClient,
    server: Server,
    team: str | None = None,
    channel: str | None = None,
    *,
    posts: bool = True,
    attaches: bool = False,
) -> Check:
    """Try the token, and with team and channel whether it may read there and, if it ``posts``, post.

    One that may post is good even where it may not attach the picture that it ``attaches``; that is said.
    """
    user = await who_am_i(client, server)
    if isinstance(user, Outcome):
        return _bad(user)
    name = f"@{user.username}" if user.username.isprintable() and user.username else "The account"
    if team is None or channel is None:
        return Check(
            "good",
            f"The token works, as {name}. Name the team and the channel to check those.",
            200,
        )
    found = await find_channel(client, server, team, channel)
    if isinstance(found, Outcome):
        return _bad(found)
    place = found[0].id
    team_id = found[0].team_id
    asked = [
        (
            f"/channels/{place}/posts?per_page=1",
            f"{name} may not read {channel}. Add it to the channel, or its posts cannot be looked for.",
        )
    ]
    if posts:
        asked.insert(
            0,
            (
                f"/channels/{place}/members/me",
                f"{name} is not a member of {channel}. Add it to the channel so that it can post.",
            ),
        )
    for path, words in asked:
        if (wrong := await _refused(client, server, path, words)) is not None:
            return _bad(wrong)
    done = f"{name} may post to {channel}" if posts else f"{name} may read {channel}"
    words = f"The token works: {done}; nothing was posted."
    if attaches and await may_attach(client, server, place, team_id, user.roles) is False:
        words += f" But {MAY_NOT_ATTACH}, or switch the picture off; until then the digest comes without it."
    return Check("good", words, 200)


async def _refused(client: OutboundClient, server: Server, path: str, words: str) -> Outcome | None:
    try:
        reply = await server.request(client, "GET", path)
    except OutboundError as error:
        return failure(error)
    if reply.status == 200 and reply.media_type == "application/json":
        return None
    return refusal(reply, {403: ("auth", words), 404: ("auth", words)})


def _bad(outcome: Outcome) -> Check:
    if outcome.http_status is not None and 300 <= outcome.http_status < 400:
        return Check("redirected", outcome.message, outcome.http_status)
    if outcome.error_kind == "network":
        verdict: Verdict = "unreachable" if outcome.state == "retryable" else "no_clear_answer"
        return Check(verdict, outcome.message, outcome.http_status)
    return Check(_VERDICTS[outcome.error_kind or "unknown"], outcome.message, outcome.http_status)
