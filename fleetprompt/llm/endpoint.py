"""The endpoint that the operator offers, and its bounds."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Literal

from fleetprompt.llm.outcome import Usage
from fleetprompt.settings import Settings
from fleetprompt.vault.secret import Secret


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible endpoint. Prices are US dollars per million tokens, caps a tenant's UTC day."""

    url: str
    model: str
    key: Secret | None
    seconds: float
    answer_tokens: int
    answer_tokens_name: Literal["max_tokens", "max_completion_tokens"]
    price_in: Decimal
    price_out: Decimal
    daily_tokens: int
    daily_micro_dollars: int

    def usage(self, tokens_in: int, tokens_out: int) -> Usage:
        """What so many tokens cost, rounded up to a millionth of a dollar."""
        # A dollar per million tokens is a millionth of a dollar per token.
        cost = tokens_in * self.price_in + tokens_out * self.price_out
        return Usage(tokens_in, tokens_out, int(cost.to_integral_value(ROUND_CEILING)))


def configured(settings: Settings) -> Endpoint | None:
    """The endpoint that the operator offers to tenants; None unless both URL and model are set."""
    if settings.llm_url is None or settings.llm_model is None:
        return None
    key = settings.llm_key
    return Endpoint(
        url=settings.llm_url.rstrip("/"),
        model=settings.llm_model,
        key=None if key is None else Secret(key.get_secret_value()),
        seconds=settings.llm_seconds,
        answer_tokens=settings.llm_answer_tokens,
        answer_tokens_name=settings.llm_answer_tokens_name,
        price_in=settings.llm_price_in,
        price_out=settings.llm_price_out,
        daily_tokens=settings.llm_daily_tokens,
        daily_micro_dollars=int(settings.llm_daily_dollars.scaleb(6)),
    )
