"""The chat's configuration: what JSON Schema cannot say of it."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.transports.mattermost import parse_channel
from fleetprompt.outbound.transports.smtp import same_address
from fleetprompt.outbound.transports.smtp.letter import address
from fleetprompt.webchat.tenant_settings import ChatSettings


def validate(config: Mapping[str, Any]) -> ChatSettings:
    """The typed settings of a mapping that the manifest's schema has accepted.

    Raises InvalidError with every error found, its pointers relative to ``config``.
    """
    checked = dict(config)
    errors: list[dict[str, Any]] = []
    for name, check in _CHECKS.items():
        if checked.get(name) is None:
            continue
        try:
            checked[name] = check(checked[name])
        except InvalidError as error:
            errors.append({"pointer": f"/{name}", "detail": error.detail})
    settings = None if errors else ChatSettings.of_json(checked)
    errors += [] if settings is None else _contradictions(settings)
    if settings is None or errors:
        raise InvalidError(errors[0]["detail"], errors=errors)
    return settings


def _contradictions(settings: ChatSettings) -> list[dict[str, str]]:
    """What each option alone would allow, and all together do not."""
    found = []
    if settings.email_every_conversation and not settings.email_to:
        found.append({"pointer": "/email_to", "detail": "Name at least one address to mail to."})
    if settings.email_to and settings.email_via == "connector" and settings.connector_id is None:
        found.append({"pointer": "/connector_id", "detail": "Choose the connector that mails."})
    if settings.captcha != "off" and not settings.captcha_site_key:
        found.append({"pointer": "/captcha_site_key", "detail": "A CAPTCHA has a site key."})
    return found


def _id(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError as error:
        raise InvalidError("Must be an id, a UUID.") from error


def _address(value: str) -> str | None:
    if not value.strip():
        return None
    try:
        return address(value.strip()).addr_spec
    except ValueError as error:
        raise InvalidError("Must be an e-mail address, such as chat@example.org.") from error


def _addresses(values: list[str]) -> list[str]:
    given = [found for found in map(_address, values) if found is not None]
    return list({same_address(one): one for one in given}.values())


def _channel(value: str) -> str | None:
    return parse_channel(value) if value.strip() else None


def _script(value: str) -> str | None:
    """An https address that stands in a page as it is: no user, no fragment, a host with a dot."""
    if not value.strip():
        return None
    try:
        parts = urlsplit(value.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = parts = None
    usable = (
        parts is not None
        and parts.scheme == "https"
        and host is not None
        and "." in host
        and "@" not in parts.netloc
        and not parts.fragment
        and value.isascii()
        and value.isprintable()
        and not set(" \"'<>\\`{}|^") & set(value.strip())
    )
    if not usable:
        raise InvalidError("Must be an https address, such as https://widget.example.com/chat.js.")
    return value.strip()


_CHECKS: dict[str, Callable[[Any], object]] = {
    "notify_installation_id": _id,
    "notify_channel": _channel,
    "email_to": _addresses,
    "email_sender": _address,
    "smtp_credential_id": _id,
    "connector_id": _id,
    "captcha_credential_id": _id,
    "charla_script_url": _script,
}
