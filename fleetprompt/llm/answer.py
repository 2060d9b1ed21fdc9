"""Reading a chat completion's answer (OpenAI API reference, "Create chat completion").

Only what is needed is read, and strictly; whatever else the answer says is ignored and forgotten.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleetprompt.llm.outcome import FailureKind
from fleetprompt.outbound.http import Reply

# Above what any model reads or writes at once; a larger figure is no figure.
_Tokens = Annotated[int, Field(ge=0, le=10_000_000)]
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


class _Message(_Part):
    content: str | None = None


class _Choice(_Part):
    message: _Message
    finish_reason: str | None = None


class ReportedUsage(_Part):
    """The tokens that the endpoint says it used."""

    prompt_tokens: _Tokens
    completion_tokens: _Tokens


class _Usage(_Part):
    usage: ReportedUsage


class _Answer(_Part):
    choices: Annotated[list[_Choice], Field(min_length=1)]


def reported_usage(reply: Reply) -> ReportedUsage | None:
    """What a 200 says was used; None where it does not say so readably."""
    try:
        return _Usage.model_validate_json(reply.body).usage
    except ValidationError:
        return None


def text_of(reply: Reply) -> str | tuple[FailureKind, str]:
    """The text of a whole 200, or why there is none."""
    try:
        choice = _Answer.model_validate_json(reply.body).choices[0]
    except ValidationError:
        return "malformed", "The endpoint's answer is not a chat completion."
    if choice.finish_reason not in ("stop", None):
        return "cut_short", "The model did not come to the end of its text."
    text = _CONTROL.sub("", choice.message.content or "").strip()
    return text or ("malformed", "The endpoint's answer holds no text.")


_STATUSES: Mapping[int, tuple[FailureKind, str]] = {
    401: ("auth", "The endpoint does not accept the key."),
    403: ("auth", "The endpoint does not let the key use the model."),
    404: ("rejected", "The endpoint knows neither this address nor, perhaps, this model (404)."),
    429: ("rate_limit", "The endpoint takes no more questions for now (429)."),
}


def refusal(status: int) -> tuple[FailureKind, str]:
    """What a status other than 200 means."""
    if status in _STATUSES:
        return _STATUSES[status]
    if status >= 500:
        return "server", f"The endpoint failed ({status})."
    return "rejected", f"The endpoint does not take the question ({status})."
