"""Packages are found by their folder, and what is wrong in them is told by place."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fleetprompt.packages
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.packages.canonical import canonical_json
from fleetprompt.packages.manifest import (
    Manifest,
    ManifestError,
    matches,
    parse_manifest,
    read_manifest,
)
from fleetprompt.packages.registry import (
    PackageConfig,
    config_checksum,
    get,
    handlers_of,
    registry,
    validate_config,
)

DIGEST = "mattermost_daily_ops_digest"
MANIFEST = """
slug = "greeter"
name = "Greeter"
version = "1.2.3"
category = "operations"
publisher = "FleetPrompt"
description = "Says hello."
consumes = ["webchat.*"]
emits = ["greeter.said"]
hosts = ["api.example.com"]
onboarding = "Nothing to do."
[[provides]]
kind = "workflow"
name = "hello"
description = "Says hello."
[config]
type = "object"
additionalProperties = false
required = ["greeting"]
[config.properties.greeting]
type = "string"
maxLength = 10
[config.properties.api_key]
type = "string"
minLength = 8
writeOnly = true
[config.properties."a/b~c"]
type = "integer"
"""


@pytest.fixture
def greeter() -> Manifest:
    return parse_manifest(MANIFEST, where="greeter")


def test_the_digest_is_registered_with_what_the_seed_asks_for() -> None:
    manifest = get(DIGEST)
    assert registry()[DIGEST] is manifest
    assert (manifest.category, manifest.publisher) == ("operations", "FleetPrompt")
    assert {(p.kind, p.name) for p in manifest.provides} >= {
        ("workflow", "daily_ops_digest"),
        ("agent", "digest_generator"),
        ("integration", "mattermost"),
    }
    assert {"package.*", "directive.*", "agent.execution.*"} <= set(manifest.consumes)
    assert set(manifest.emits) == {
        "mattermost.digest.requested",
        "mattermost.digest.generated",
        "mattermost.message.posted",
        "mattermost.message.failed",
        "mattermost.message.given_up",
        "value.digest.posted",
    }


def test_a_package_is_added_by_its_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "greeter"
    folder.mkdir()
    (folder / "manifest.toml").write_text(MANIFEST)
    (folder / "handlers.py").write_text(
        "signal_handlers = {'webchat.*': lambda signal: []}\nDIRECTIVE_TYPES = ()\n"
    )
    home = [*fleetprompt.packages.__path__, str(tmp_path)]
    monkeypatch.setattr(fleetprompt.packages, "__path__", home)
    registry.cache_clear()
    try:
        assert set(registry()) == {DIGEST, "greeter"} | set(registry())
        config = validate_config(get("greeter"), {"greeting": "hello"})
        assert config.as_json() == {"greeting": "hello"}
        assert isinstance(config, PackageConfig)
        handlers = handlers_of("greeter")
        assert handlers is not None
        assert list(handlers.signal_handlers["webchat.*"]("a signal")) == []
    finally:
        registry.cache_clear()


@pytest.mark.parametrize("slug", ["nothing", "", "../x", "os.path", "x" * 5000, DIGEST.upper()])
def test_an_unknown_package_is_not_found(slug: str) -> None:
    with pytest.raises(NotFoundError) as told:
        get(slug)
    assert len(told.value.detail) < 150
    with pytest.raises(NotFoundError):
        handlers_of(slug)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "Greeter"', 'name = "Greeter"\ncolour = "red"', "colour"),
        ('version = "1.2.3"', 'version = "1.2"', "version"),
        ('version = "1.2.3"', 'version = "01.2.3"', "version"),
        ('version = "1.2.3"', "version = 1.2", "version"),
        ('slug = "greeter"', 'slug = "Greeter-1"', "slug"),
        ('publisher = "FleetPrompt"\n', "", "publisher"),
        ('emits = ["greeter.said"]', 'emits = ["greeter.*"]', "emits"),
        ('consumes = ["webchat.*"]', 'consumes = ["webchat.*", "webchat.*"]', "twice"),
        ('consumes = ["webchat.*"]', 'consumes = ["*"]', "consumes"),
        ('hosts = ["api.example.com"]', 'hosts = ["http://api.example.com/"]', "hosts"),
        ('kind = "workflow"', 'kind = "code"', "provides.0.kind"),
        ('type = "integer"', 'type = "whole"', "config.properties"),
        ("additionalProperties = false", "", "additionalProperties"),
        ('[config]\ntype = "object"', '[config]\ntype = "array"', "config.type"),
        ("minLength = 8\nwriteOnly = true", "minLength = 8", "api_key: a secret must be writeOnly"),
        ('type = "integer"', '"$ref" = "https://example.com/schema"', r"\$ref"),
        ('[config]\ntype = "object"', '[config]\n"$schema" = "x:y"\ntype = "object"', r"\$schema"),
        ("[config]", "[config", "not TOML"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(old: str, new: str, told: str) -> None:
    assert MANIFEST.count(old) == 1
    with pytest.raises(ManifestError, match=rf"^greeter: .*{told}"):
        parse_manifest(MANIFEST.replace(old, new), where="greeter")


def test_a_folder_must_be_named_like_its_package(tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_text(MANIFEST)
    with pytest.raises(ManifestError, match="the folder"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "absent")


def test_a_manifest_cannot_be_changed_and_knows_its_secrets(greeter: Manifest) -> None:
    with pytest.raises(ValueError, match="frozen"):
        greeter.version = "2.0.0"  # type: ignore[misc]
    assert greeter.secret_options == {"api_key"}


@pytest.mark.parametrize(
    ("pattern", "signal_type", "covered"),
    [
        ("package.*", "package.install.failed", True),
        ("package.*", "package", False),
        ("package.*", "packages.x", False),
        ("package.install.failed", "package.install.failed", True),
        ("package.install", "package.install.failed", False),
    ],
)
def test_a_consumed_pattern_covers_what_is_below_it(
    pattern: str, signal_type: str, covered: bool
) -> None:
    assert matches(pattern, signal_type) is covered


@pytest.mark.parametrize(
    ("config", "pointers"),
    [
        ({}, ["/config/greeting"]),
        ({"greeting": 1}, ["/config/greeting"]),
        ({"greeting": "x" * 11}, ["/config/greeting"]),
        ({"greeting": "hi", "shout/ed~": 1}, ["/config/shout~1ed~0"]),
        ({"greeting": "hi", "a/b~c": "x"}, ["/config/a~1b~0c"]),
        ({"a/b~c": 1.5, "extra": 1}, ["/config/a~1b~0c", "/config/extra", "/config/greeting"]),
        ([], ["/config"]),
        (None, ["/config"]),
        ("text", ["/config"]),
        ({"greeting": "nul\x00"}, ["/config/greeting"]),
        ({"greeting": "\ud800"}, ["/config/greeting"]),
        ({"greeting": float("nan")}, ["/config/greeting"]),
        ({"\x00": 1}, ["/config"]),
    ],
)
def test_a_wrong_configuration_is_told_by_pointer(
    greeter: Manifest, config: object, pointers: list[str]
) -> None:
    with pytest.raises(InvalidError) as told:
        validate_config(greeter, config)
    assert [error["pointer"] for error in told.value.errors] == pointers
    assert all(error["detail"] for error in told.value.errors)


def test_a_secret_is_never_repeated_in_an_error(greeter: Manifest) -> None:
    for wrong in ("hunter2", ["hunter2"], {"hunter2": "hunter2"}):
        with pytest.raises(InvalidError) as told:
            validate_config(greeter, {"greeting": "hi", "api_key": wrong})
        assert "hunter2" not in repr((told.value.detail, told.value.errors, str(told.value)))


def test_a_configuration_nested_ten_thousand_deep_is_a_problem(greeter: Manifest) -> None:
    nested: Any = "bottom"
    for _ in range(10_000):
        nested = [nested]
    with pytest.raises(InvalidError, match="nested deeper"):
        validate_config(greeter, {"greeting": nested})


def test_the_digests_own_code_is_asked_after_its_schema() -> None:
    credential = uuid4()
    config = validate_config(
        get(DIGEST), {"mattermost_credential_id": str(credential), "channel": "#town-square"}
    )
    assert config.as_json()["channel"] == "town-square"
    assert config.missing() == ()
    with pytest.raises(InvalidError) as told:
        validate_config(get(DIGEST), {"timezone": "Europe", "schedule_time": "25:00"})
    assert [error["pointer"] for error in told.value.errors] == [
        "/config/timezone",
        "/config/schedule_time",
    ]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_is_json_and_a_fixed_point(value: object) -> None:
    written = canonical_json(value)
    # As ECMAScript reads numbers: all of them doubles.
    read = json.loads(written, parse_int=float)
    assert read == value
    assert canonical_json(read) == written


@given(st.dictionaries(st.text(), st.integers(0, 9), max_size=6), st.randoms())
def test_trap_21_a_checksum_does_not_depend_on_order(config: dict[str, int], random: Any) -> None:
    items = list(config.items())
    random.shuffle(items)
    assert config_checksum(dict(items)) == config_checksum(config)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        # RFC 8785 §3.2.2.3 and appendix B.
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-1.7976931348623157e308, "-1.7976931348623157e+308"),
        (9007199254740992, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (0.000001, "0.000001"),
        (1e-7, "1e-7"),
        (333333333.33333329, "333333333.3333333"),
        (4.50, "4.5"),
        (2e-3, "0.002"),
        ({"b": [1, "\u20ac\n\x0f"], "a": None}, '{"a":null,"b":[1,"€\\n\\u000f"]}'),
        # Names are sorted by UTF-16 units: U+1F600 (D83D …) before U+FB33.
        ({"\ufb33": 1, "\U0001f600": 2}, '{"\U0001f600":2,"\ufb33":1}'),
    ],
)
def test_canonical_json_follows_rfc_8785(value: object, written: str) -> None:
    assert canonical_json(value).decode() == written


@pytest.mark.parametrize("value", [float("inf"), 2**60, "\ud800", {1: 2}, {1, 2}, b"x"])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidError):
        canonical_json(value)
