"""Rules without a database: origins, addresses, text, hours, colours."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetprompt.errors import InvalidError
from fleetprompt.webchat.addresses import client_address, network_of
from fleetprompt.webchat.hours import hours_view
from fleetprompt.webchat.origins import allowed_origin, browser_can_hash, matches
from fleetprompt.webchat.site_settings import Hours, Texts, text_colour_on
from fleetprompt.webchat.text import checked_name, message_text, page_address

LISTED = ["https://shop.example", "https://*.brand.example", "http://localhost:8080"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example",
        "https://SHOP.example",
        "https://shop.example:443",
        "https://de.brand.example",
        "http://localhost:8080",
    ],
)
def test_t35_an_origin_on_the_list_is_allowed(origin: str) -> None:
    assert matches(origin, [allowed_origin(one) for one in LISTED])


@pytest.mark.parametrize(
    "origin",
    [
        *("", "null", "*", "https://", "shop.example", "//shop.example", "file://"),
        "https://shop.example.evil.example",
        "https://evil-shop.example",
        "https://evilbrand.example",
        "https://shop.example@evil.example",
        "https://shop.example/",
        "https://shop.example.",
        "https://shop.example:8443",
        "https://shop.example:0443",
        "http://shop.example",
        "http://shop.example:443",
        "https://brand.example",
        "https://a.b.brand.example",
        "https://.brand.example",
        "https://*.brand.example",
        "https://de.brand.example.",
        "https://ѕhop.example",
        "https://xn--hop-8cd.example",
        "https://shop.example, https://evil.example",
        " https://shop.example",
        "https://shop.example\n",
        "https://shop.example#",
        "http://localhost:80800",
        "https://shop。example",
    ],
)
def test_t35_every_other_origin_is_refused(origin: str) -> None:
    assert not matches(origin, [allowed_origin(one) for one in LISTED])


def test_t36_an_empty_list_refuses_all() -> None:
    assert not any(matches(origin, []) for origin in (*LISTED, "", "null", "*"))


@pytest.mark.parametrize(
    "entry", ["*", "https://*", "https://*.*.example", "https://a.*.example", "shop", "ftp://a.b"]
)
def test_an_entry_that_would_allow_anything_is_refused(entry: str) -> None:
    with pytest.raises(InvalidError):
        allowed_origin(entry)


def test_t40_an_address_is_what_the_trusted_proxies_say_and_nothing_before_it() -> None:
    assert client_address("10.0.0.1", "1.1.1.1", 0) == "10.0.0.1"
    assert client_address("10.0.0.1", "", 1) == "10.0.0.1"
    assert client_address("10.0.0.1", "6.6.6.6, 2.2.2.2", 1) == "2.2.2.2"
    assert client_address("10.0.0.1", "6.6.6.6, 2.2.2.2, 3.3.3.3", 2) == "2.2.2.2"


def test_addresses_count_by_their_network() -> None:
    assert network_of("192.0.2.7") == network_of("192.0.2.200") == "192.0.2.0/24"
    assert network_of("::ffff:192.0.2.7") == "192.0.2.0/24"
    assert network_of("2001:db8:1:2::5") == network_of("2001:db8:1:2:ffff::") == "2001:db8:1:2::/64"
    assert network_of("2001:db8:1:3::5") != network_of("2001:db8:1:2::5")
    assert network_of("unix socket") == "unix socket"


@given(st.text(max_size=5000))
def test_t44_every_text_is_stored_as_it_can_be_or_refused(text: str) -> None:
    try:
        found = message_text(text)
    except InvalidError:
        return
    assert 0 < len(found) <= 4000
    assert "\x00" not in found
    found.encode()
    assert message_text(found) == found


@given(st.text(max_size=300))
def test_t45_a_name_cannot_turn_or_hide_what_stands_beside_it(name: str) -> None:
    try:
        found = checked_name(name)
    except InvalidError:
        return
    if found is not None:
        assert not set(found) & set(
            "\u202a\u202b\u202d\u202e\u2066\u2067\u2069\u200b\ufeff\x00\n\t"
        )
        assert 0 < len(found) <= 100


def test_t46_a_page_is_http_or_nothing_and_without_query() -> None:
    assert page_address("https://shop.example:8443/cart?token=1#top") == (
        "https://shop.example:8443/cart"
    )
    assert page_address("https://user:secret@shop.example/a") == "https://shop.example/a"
    for bad in (
        *("javascript:alert(1)", "data:text/html,x", "JAVASCRIPT://shop.example/%0aalert(1)"),
        *("https://", "http://[::1", "https://shop.example/\n", "x" * 3000, "/cart", ""),
    ):
        assert page_address(bad) is None


def test_hours_say_when_somebody_is_back_in_the_visitors_language() -> None:
    hours = Hours(
        zone="Europe/Berlin",
        week={"mon": [("09:00", "12:00"), ("13:00", "17:00")], "fri": [("09:00", "24:00")]},
        text="We answer within minutes",
        away="Leave a message.",
    )

    def shown(day: int, hour: int, minute: int = 0, language: str = "en") -> object:
        at = datetime(2026, 11, day, hour, minute, tzinfo=UTC)
        view = hours_view(hours, Texts(), language, at)  # type: ignore[arg-type]
        assert view is not None
        return view["open"], view["text"]

    assert shown(23, 8) == (True, "We answer within minutes")  # Monday, 9:00 in Berlin
    assert shown(23, 7, 59) == (False, "Back at 9:00")
    assert shown(23, 11, 30) == (False, "Back at 13:00")
    assert shown(23, 16) == (False, "Back on Friday at 9:00")
    assert shown(27, 22, 59) == (True, "We answer within minutes")
    assert shown(27, 23) == (False, "Back on Monday at 9:00")  # Saturday there
    assert shown(21, 12, 0, "de") == (False, "Wieder da am Montag um 9:00 Uhr")
    assert hours_view(None, Texts(), "en", datetime.now(UTC)) is None


def test_what_is_written_on_the_accent_can_be_read() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for red in range(0, 256, 51):
        for green in range(0, 256, 51):
            for blue in range(0, 256, 51):
                accent = f"#{red:02x}{green:02x}{blue:02x}"
                light, dark = sorted((luminance(accent), luminance(text_colour_on(accent))))[::-1]
                assert (light + 0.05) / (dark + 0.05) >= 4.5, accent


def test_t39_no_signature_is_compared_with_equals(repository: Path) -> None:
    for path in (repository / "fleetprompt/webchat").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                compared = ast.unparse(node)
                assert not any(word in compared for word in ("signature", "mac(", "digest(")), (
                    f"{path.name}: {compared}"
                )


@pytest.mark.parametrize(
    ("origin", "can"),
    [
        *(("https://shop.example", True), ("https://shop.example:8443", True)),
        *(("http://localhost:8080", True), ("http://demo.localhost", True)),
        *(("http://127.0.0.1:9000", True), ("http://[::1]:80", True), ("http://[::1]", True)),
        *(("http://shop.example", False), ("http://127.0.0.1.evil.example", False)),
        *(("http://notlocalhost", False), ("http://[2001:db8::1]", False)),
    ],
)
def test_trap_16_browsers_hash_only_where_the_page_came_over_https_or_from_their_machine(
    origin: str, can: bool
) -> None:
    assert browser_can_hash(origin) is can
