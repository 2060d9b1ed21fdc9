"""The params of ``email.send``: one mail, checked so that no address or header can hide another."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from fleetprompt.directives.types import DirectiveParams

MOST_RECIPIENTS = 50
BODY_LIMIT = 256 * 1024  # bytes of UTF-8, both bodies together
SUBJECT_LIMIT = 500  # characters

# An addr-spec without quoted local parts and comments (RFC 5322 §3.4.1), which no mailbox needs and which
# could hold a second address; other scripts are allowed (RFC 6531). Lengths are those of RFC 5321 §4.5.3.1.
_ADDRESS = re.compile(
    r"(?!\.)[^\s@<>()\[\]\\,;:\"\x00-\x1f\x7f]{1,64}(?<!\.)@"
    r"(?:[^\s@<>()\[\]\\,;:\"\x00-\x2c\x2f\x7f.-](?:[^\s@<>()\[\]\\,;:\"\x00-\x2c\x2f\x7f.]{0,62})\.)+"
    r"[^\s@<>()\[\]\\,;:\"\x00-\x2c\x2f\x7f.-]{1,63}"
)
_MESSAGE_ID = re.compile(r"<[^\s<>\x00-\x1f\x7f]{1,500}@[^\s<>@\x00-\x1f\x7f]{1,480}>", re.ASCII)


def _address(text: str) -> str:
    if len(text) > 254 or ".." in text or not text.isprintable() or not _ADDRESS.fullmatch(text):
        raise ValueError("is no mail address such as ann@example.org")
    return text


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


def _text(text: str) -> str:
    if "\x00" in text:
        raise ValueError("NUL cannot be sent")
    return text


def _message_id(text: str) -> str:
    if not _MESSAGE_ID.fullmatch(text):
        raise ValueError("is no Message-ID such as <1@example.org>")
    return text


Address = Annotated[str, AfterValidator(_address)]
Addresses = Annotated[tuple[Address, ...], Field(max_length=MOST_RECIPIENTS)]
Body = Annotated[str, StringConstraints(max_length=BODY_LIMIT), AfterValidator(_text)]


class EmailParams(DirectiveParams):
    """One mail, of plain text, HTML or both. It goes out through the connector's account."""

    model_config = ConfigDict(serialize_by_alias=True)

    sender: Address | None = Field(
        None, alias="from", description="The address to send as; null: the account's own."
    )
    to: Annotated[Addresses, Field(min_length=1)] = Field(description="Addresses, without names.")
    cc: Addresses = Field((), description="Addresses that the others see.")
    bcc: Addresses = Field((), description="Addresses that nobody else sees.")
    subject: Annotated[str, StringConstraints(max_length=SUBJECT_LIMIT), AfterValidator(_one_line)]
    text_body: Body | None = Field(None, description="The mail as plain text.")
    html_body: Body | None = Field(None, description="The mail as HTML.")
    reply_to_message_id: Annotated[str, AfterValidator(_message_id)] | None = Field(
        None, description="Message-ID of the mail that this one answers."
    )
    account: Address | None = Field(
        None, description="The account that shall send it; a connector of another one refuses."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        everybody = [one.casefold() for one in (*self.to, *self.cc, *self.bcc)]
        if len(everybody) > MOST_RECIPIENTS:
            raise ValueError(f"to, cc and bcc have at most {MOST_RECIPIENTS} addresses together")
        if len(set(everybody)) < len(everybody):
            raise ValueError("an address stands in to, cc and bcc more than once")
        bodies = [one for one in (self.text_body, self.html_body) if one is not None]
        if not any(one.strip() for one in bodies):
            raise ValueError("text_body or html_body must say something")
        if sum(len(one.encode("utf-8", "surrogatepass")) for one in bodies) > BODY_LIMIT:
            raise ValueError(f"text_body and html_body have at most {BODY_LIMIT} bytes together")
        return self
