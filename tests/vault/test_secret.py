"""A secret shows itself nowhere but where it is asked for by name (T25)."""

import copy
import dataclasses
import io
import json
import logging
import pickle
import traceback

import pytest
from pydantic import BaseModel, ValidationError

from fleetprompt.log import JsonFormatter, TextFormatter
from fleetprompt.vault.secret import MASK, Secret

CANARY = "canary-7b1c02e94d"


@dataclasses.dataclass
class Credential:
    name: str
    value: Secret


class Form(BaseModel):
    webhook: Secret


def test_only_reveal_shows_the_text() -> None:
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r} {secret!s} {secret:>20}",
        "{}".format(secret),  # noqa: UP032
        "%s %r" % (secret, secret),  # noqa: UP031
        repr([secret]),
        repr({"k": secret}),
        repr(Credential("hook", secret)),
        str(dataclasses.asdict(Credential("hook", secret))),
        json.dumps({"k": secret}, default=str),
        repr(ValueError("bad", secret)),
        repr(Form(webhook=secret)),
        str(Form(webhook=secret).model_dump()),
        Form(webhook=secret).model_dump_json(),
        repr(dir(secret)),
    ]
    for text in shown:
        assert CANARY not in text
    assert f"{secret:>12}" == f"  {MASK}"


def test_it_is_no_string_and_not_written_by_accident() -> None:
    secret = Secret(CANARY)
    for attempt in (
        lambda: "x" + secret,  # type: ignore[operator]
        lambda: "".join([secret]),  # type: ignore[list-item]
        lambda: list(secret),  # type: ignore[call-overload]
        lambda: secret.encode(),  # type: ignore[attr-defined]
        lambda: json.dumps(secret),
        lambda: pickle.dumps(secret),
        lambda: vars(secret),
    ):
        with pytest.raises((TypeError, AttributeError)) as caught:
            attempt()
        assert CANARY not in str(caught.value)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_it_is_masked_in_a_log_with_its_exception(formatter: logging.Formatter) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("vault", logging.DEBUG)
    logger.addHandler(handler)
    secret = Secret(CANARY)
    try:
        raise RuntimeError("refused", secret)
    except RuntimeError:
        logger.exception("posting with %s", secret, extra={"credential": secret})
    assert MASK in stream.getvalue()
    assert CANARY not in stream.getvalue()


def test_a_form_takes_text_and_gives_the_mask() -> None:
    form = Form.model_validate({"webhook": CANARY})
    assert form.webhook == Secret(CANARY)
    assert Form.model_validate_json(json.dumps({"webhook": CANARY})) == form
    assert json.loads(form.model_dump_json()) == {"webhook": MASK}
    assert Form.model_json_schema()["properties"]["webhook"] == {
        "title": "Webhook",
        "type": "string",
        "format": "password",
        "writeOnly": True,
    }
    with pytest.raises(ValidationError):
        Form.model_validate({"webhook": 5})


def test_text_that_utf8_cannot_hold_is_refused_and_not_carried_along() -> None:
    with pytest.raises(ValueError, match="UTF-8") as caught:
        Secret(CANARY + "\ud800")
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_secrets_compare_by_content_and_copy_as_themselves() -> None:
    assert Secret(CANARY) == Secret(CANARY)
    assert Secret(CANARY) != Secret("other")
    assert Secret(CANARY) != CANARY
    assert len({Secret(CANARY), Secret(CANARY)}) == 1
    assert bool(Secret("")) is False
    secret = Secret(CANARY)
    assert copy.deepcopy(secret) is secret is copy.copy(secret)
