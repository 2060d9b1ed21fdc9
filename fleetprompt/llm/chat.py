"""One question to a model: budget, request, answer, correction, in this order."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.llm import budget
from fleetprompt.llm.answer import refusal, reported_usage, text_of
from fleetprompt.llm.endpoint import Endpoint
from fleetprompt.llm.outcome import Completion, Failure, FailureKind, Outcome, Usage
from fleetprompt.outbound.http import (
    ConnectFailedError,
    OutboundClient,
    OutboundError,
    RefusedError,
    Reply,
)
from fleetprompt.tenants.service import Tenant

QUESTION_BYTES = 64 * 1024
ANSWER_BYTES = 256 * 1024
# What a chat's template adds to each message, at the most.
_TEMPLATE_TOKENS = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that the model is to continue."""

    role: Literal["system", "user", "assistant"]
    content: str


async def complete(
    database: Database,
    client: OutboundClient,
    tenant: Tenant,
    endpoint: Endpoint,
    messages: Sequence[Message],
    *,
    seconds: float | None = None,
    clock: Clock = system_clock,
) -> Outcome:
    """The model's next turn, or why there is none; within the endpoint's caps, whatever it does.

    ``seconds`` may make the time for the answer shorter than the endpoint's. ValueError for messages
    that are together longer than 64 KiB: callers bound what they send.
    """
    asked = sum(len(one.content.encode(errors="surrogatepass")) for one in messages)
    if asked > QUESTION_BYTES:
        raise ValueError(f"{asked} bytes are more than the {QUESTION_BYTES} that may be asked")
    # No tokenizer makes more tokens than there are bytes.
    tokens = asked + _TEMPLATE_TOKENS * (len(messages) + 1)
    most = endpoint.usage(tokens, endpoint.answer_tokens)
    day = clock().date()
    if not await budget.take(database, tenant, endpoint, day, most):
        words = "The day's budget for language models has no room for this."
        return Failure("budget", words, Usage(), 0.0)
    allowed = endpoint.seconds if seconds is None else min(seconds, endpoint.seconds)
    outcome = await _ask(client, endpoint, messages, most, allowed)
    await budget.correct(database, tenant, day, most, outcome.usage)
    kind = outcome.kind if isinstance(outcome, Failure) else "text"
    _log.info("asking a language model gave %s after %d ms", kind, round(outcome.seconds * 1000))
    return outcome


async def _ask(
    client: OutboundClient,
    endpoint: Endpoint,
    messages: Sequence[Message],
    most: Usage,
    allowed: float,
) -> Outcome:
    started = time.monotonic()

    def failure(kind: FailureKind, message: str, usage: Usage) -> Failure:
        return Failure(kind, message, usage, time.monotonic() - started)

    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if endpoint.key is not None:
        key = endpoint.key.reveal()
        if not (key.isascii() and key.isprintable()):
            return failure("auth", "The key holds what no key can hold.", Usage())
        headers["Authorization"] = f"Bearer {key}"
    try:
        reply = await client.request(
            "POST",
            f"{endpoint.url}/chat/completions",
            headers=headers,
            content=_question(endpoint, messages),
            deadline_seconds=allowed,
            read_limit=ANSWER_BYTES,
        )
    except RefusedError as error:
        return failure("refused", error.reason, Usage())
    except ConnectFailedError as error:
        return failure("unreachable", error.reason, Usage())
    except OutboundError as error:
        slow = time.monotonic() - started >= allowed
        return failure("timeout" if slow else "lost", error.reason, most)
    if reply.status != 200:
        # An endpoint that failed may have done the work; one that refused has not.
        return failure(*refusal(reply.status), most if reply.status >= 500 else Usage())
    took = time.monotonic() - started
    if not reply.body_complete:
        return failure(*_incomplete(reply, slow=took >= allowed), most)
    reported = reported_usage(reply)
    used = (
        most
        if reported is None
        else endpoint.usage(reported.prompt_tokens, reported.completion_tokens)
    )
    found = text_of(reply)
    return Completion(found, used, took) if isinstance(found, str) else failure(*found, used)


def _incomplete(reply: Reply, *, slow: bool) -> tuple[FailureKind, str]:
    if len(reply.body) >= ANSWER_BYTES:
        return "too_large", f"The answer is longer than {ANSWER_BYTES} bytes."
    if slow:
        return "timeout", "The answer did not come to its end in time."
    return "lost", "The answer broke off."


def _question(endpoint: Endpoint, messages: Sequence[Message]) -> bytes:
    return json.dumps(
        {
            "model": endpoint.model,
            "messages": [{"role": one.role, "content": one.content} for one in messages],
            endpoint.answer_tokens_name: endpoint.answer_tokens,
            "stream": False,
        }
    ).encode()
