"""The digest's configuration: defaults, and every rule of the seed's §6."""

from typing import Any
from uuid import uuid4

import pytest

from fleetprompt.errors import InvalidError
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config, validate
from fleetprompt.packages.registry import config_checksum, get, validate_config

MANIFEST = get("mattermost_daily_ops_digest")


def test_nothing_given_is_everything_defaulted_and_says_what_is_missing() -> None:
    config = validate({})
    assert config == Config()
    assert config.missing() == ("mattermost_credential_id",)
    assert (config.max_lines, config.enabled, config.empty_window) == (40, True, "post")


def test_the_schemas_defaults_are_the_codes_defaults() -> None:
    stored = Config().as_json()
    options = MANIFEST.config["properties"]
    assert set(options) == set(stored)
    assert {name: option.get("default") for name, option in options.items()} == stored


def test_what_is_stored_validates_to_itself() -> None:
    given = {"mattermost_credential_id": str(uuid4()), "channel": "#ops", "timezone": "Asia/Tokyo"}
    stored = validate_config(MANIFEST, given).as_json()
    again = validate_config(MANIFEST, stored).as_json()
    assert again == stored
    assert config_checksum(again) == config_checksum(stored)


@pytest.mark.parametrize(
    ("given", "channel"),
    [
        ("town-square", "town-square"),
        ("#town-square", "town-square"),
        (" #town-square\n", "town-square"),
        ("", None),
        (None, None),
        ("a", "a"),
        ("7", "7"),
        ("ops_2", "ops_2"),
        ("a" * 64, "a" * 64),
    ],
)
def test_a8_a_channel_is_named_with_or_without_its_sign(
    given: str | None, channel: str | None
) -> None:
    assert validate({"channel": given}).channel == channel


@pytest.mark.parametrize(
    "channel",
    [
        *[
            "@boss",
            "#@boss",
            "#",
            "##ops",
            "Town Square",
            "Ops",
            "a" * 65,
            "f" * 40,
            "ops/x",
            "-ops",
        ],
        *["é", f"{'a' * 26}__{'b' * 26}"],
    ],
)
def test_a8_what_mattermost_would_not_take_as_a_channel_is_refused(channel: str) -> None:
    with pytest.raises(InvalidError) as told:
        validate({"channel": channel})
    assert told.value.errors[0]["pointer"] == "/channel"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mattermost_credential_id", "not-a-uuid"),
        ("mattermost_credential_id", 7),
        ("timezone", "Europe"),
        ("timezone", "localtime"),
        ("timezone", None),
        ("schedule_time", "24:00"),
        ("schedule_time", "25:00"),
        ("schedule_time", "9:5"),
        ("enabled", "yes"),
        ("enabled", None),
        ("include_llm_summary", "yes"),
        ("max_lines", 9),
        ("max_lines", 201),
        ("max_lines", 40.5),
        ("max_lines", True),
        ("post_as_username", ""),
        ("post_as_username", "ops\nbot"),
        ("post_as_username", "@all"),
        ("post_icon_url", "http://example.com/x.png"),
        ("post_icon_url", "https://user:word@example.com/x.png"),
        ("post_icon_url", "https://"),
        ("post_icon_url", "https://example.com:99999/"),
        ("post_icon_url", "https://[/"),
        ("post_icon_url", "https://example.com/a b"),
        ("empty_window", "never"),
        ("colour", "red"),
    ],
)
def test_a_wrong_option_is_a_problem_with_its_pointer(option: str, value: Any) -> None:
    with pytest.raises(InvalidError) as told:
        validate_config(MANIFEST, {option: value})
    assert [error["pointer"] for error in told.value.errors] == [f"/config/{option}"]
