"""The letter as people see it: golden files, hostile text, a picture for light and dark pages."""

import io
import re
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from html import escape
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image

from fleetprompt.outbound.transports.mattermost import plain
from fleetprompt.outbound.transports.smtp import Audience
from fleetprompt.packages.digest.chart import BARS, HEIGHT, WIDTH, Bar, draw
from fleetprompt.packages.email_daily_digest import page
from fleetprompt.packages.email_daily_digest.config import Config
from fleetprompt.packages.email_daily_digest.letters import letter_of
from tests.packages.digest_days import DAYS, golden_digest

GOLDEN = Path(__file__).parent / "golden"
ADMINS = Audience("ada@acme.example", ("ada@acme.example", "ben@acme.example"))
EXECUTION = UUID("0195716e-0a00-7000-8000-00000000abcd")


def bars() -> list[Bar]:
    """Two quiet weeks and a bad day."""
    signals = (1210, 1302, 1188, 960, 402, 388, 1275, 1311, 1290, 1244, 1017, 420, 1320, 1457)
    errors = (2, 0, 4, 1, 0, 0, 3, 5, 2, 4, 1, 0, 4, 30)
    first = datetime(2026, 2, 23, tzinfo=UTC).toordinal()
    days = [datetime.fromordinal(first + n).date().isoformat() for n in range(len(signals))]
    return [Bar(*told) for told in zip(days, signals, errors, strict=True)]


def markdown_of(day: str) -> str:
    """That day's digest with the e-mail's own default of lines."""
    return golden_digest(day, max_lines=Config().max_lines).text


def letter(day: str) -> bytes:
    """That day's digest as the bytes that are sent."""
    kept = {
        "text": markdown_of(day),
        "bars": [bar.as_json() for bar in bars()],
        "tenant": "Acme Robotics",
        "date": "2026-03-08T13:00:04+00:00",
    }
    return letter_of(kept, EXECUTION).compose(ADMINS)


def parsed(content: bytes) -> EmailMessage:
    message = BytesParser(policy=default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


def part(message: EmailMessage, kind: str) -> str:
    found = message.get_body((kind,))
    assert found is not None
    return str(found.get_content()).replace("\r\n", "\n")


def shown(content: bytes) -> bytes:
    """The message with its picture left out: how a picture is packed depends on the library."""
    return re.sub(rb"(?s)(Content-Type: image/png.*?\r\n\r\n).*?(\r\n--)", rb"\1\2", content)


@pytest.mark.parametrize("day", DAYS)
def test_the_letter_is_the_golden_one(day: str, request: pytest.FixtureRequest) -> None:
    """Trap 42: the same facts, the same bytes."""
    golden = GOLDEN / f"email_{day}.eml"
    made = shown(letter(day))
    assert made == golden.read_bytes(), f"if this is meant, write it anew: {golden.name}"


@pytest.mark.parametrize("day", DAYS)
def test_both_readers_get_every_figure_and_every_link(day: str) -> None:
    markdown = markdown_of(day)
    message = parsed(letter(day))
    text, html = part(message, "plain"), part(message, "html")
    for figure in re.findall(r"\d[\d,.]*", re.sub(r"\(http[^)]*\)", "", markdown)):
        assert figure in text
        assert figure in html
    for address in re.findall(r"\((https?://[^)]*)\)", markdown):
        assert address in text
        assert f'href="{escape(address)}"' in html
    assert max(len(line) for line in text.splitlines()) < 998
    assert "prefers-color-scheme: dark" in html
    assert EXECUTION.hex in text
    assert EXECUTION.hex in html


def test_text_from_outside_is_neither_markup_nor_a_request() -> None:
    """Trap 15 for mail: nothing loads, nothing runs, nothing hides."""
    hostile = (
        '<script>alert(1)</script><img src="https://evil.example/x.png">'
        "![x](https://evil.example/y.png)[click](javascript:alert(1))<!--"
    )
    markdown = f"#### 🔴 {plain(hostile)} · 1 error\n\n| a |\n|:--|\n| `{hostile}` |\n{hostile}"
    found = page.html(markdown, [], f"You {hostile}", "t" * 32)
    for tag in ("<script", "<img", "<!--", 'href="javascript'):
        assert tag not in found
    assert re.findall(r'(?:src|background)="', found) == []
    assert "\n" not in page.subject(markdown)
    assert len(page.subject("#### " + "x" * 5000)) <= 150


def test_the_picture_shows_each_bar_on_a_transparent_ground() -> None:
    picture = Image.open(io.BytesIO(draw(bars())))
    assert picture.size == (WIDTH, HEIGHT)
    shades = picture.convert("RGBA")
    assert shades.getpixel((0, 0))[3] == 0  # type: ignore[index]
    colours = {shades.getpixel((x, y)) for x in range(WIDTH) for y in range(HEIGHT)}
    for colour in colours - {(0, 0, 0, 0)}:
        for ground in ((255, 255, 255), (0x14, 0x17, 0x1A)):
            assert contrast(colour[:3], ground) >= 3, (colour, ground)  # type: ignore[index]
    width = WIDTH // BARS
    tall = [
        sum(shades.getpixel((n * width + width // 2, y))[0] == 0xE0 for y in range(HEIGHT))  # type: ignore[index]
        for n in range(BARS)
    ]
    errors = [bar.errors for bar in bars()]
    assert [height > 0 for height in tall] == [count > 0 for count in errors]
    assert tall.index(max(tall)) == errors.index(max(errors))


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: tuple[int, ...]) -> float:
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
