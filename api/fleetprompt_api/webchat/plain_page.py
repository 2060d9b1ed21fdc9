"""Drawing the chat's page without script: one document under a policy that allows nothing but itself."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from fleetprompt.webchat.site_settings import Language, Theme, text_colour_on
from fleetprompt_api.webchat.plain_words import WORDS

_LIGHT = (
    "--ground:#f5f6f8;--card:#fff;--line:#d6dbe2;--text:#1b2330;--quiet:#566171;--focus:#0a6fd6"
)
_DARK = (
    "--ground:#12161c;--card:#1a2029;--line:#38424f;--text:#e4e8ee;--quiet:#9aa6b6;--focus:#6db6ff"
)
_SCHEMES = {
    "light": f":root{{{_LIGHT};color-scheme:light}}",
    "dark": f":root{{{_DARK};color-scheme:dark}}",
    "auto": (
        f":root{{{_LIGHT};color-scheme:light dark}}"
        f"@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    ),
}


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("fleetprompt_api.webchat", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=1)
def _rules() -> str:
    return (files("fleetprompt_api.webchat") / "templates" / "plain.css").read_text()


@dataclass(frozen=True, slots=True)
class _Vendor:
    """What a CAPTCHA's vendor has on a page, by its own reference."""

    script: str
    css_class: str
    field: str
    hosts: str


_VENDORS = {
    "hcaptcha": _Vendor(
        "https://js.hcaptcha.com/1/api.js",
        "h-captcha",
        "h-captcha-response",
        "https://hcaptcha.com https://*.hcaptcha.com",
    ),
    "turnstile": _Vendor(
        "https://challenges.cloudflare.com/turnstile/v0/api.js",
        "cf-turnstile",
        "cf-turnstile-response",
        "https://challenges.cloudflare.com",
    ),
}
CAPTCHA_FIELDS = tuple(vendor.field for vendor in _VENDORS.values())


def draw(
    language: Language,
    theme: Theme,
    status: int,
    *,
    captcha: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """The page; its style is named in its policy by its hash (W3C CSP 3 §2.3.1).

    With ``captcha`` (its vendor and site key) the page has that, and its policy allows the vendor's hosts.
    """
    vendor = _VENDORS[captcha["vendor"]] if captcha else None
    colours = f":root{{--accent:{theme.accent};--on:{text_colour_on(theme.accent)}}}"
    style = _SCHEMES[theme.scheme] + colours + _rules()
    words = WORDS[language]
    text = (
        _templates()
        .get_template("plain.html")
        .render(
            **values,
            language=language,
            words=words,
            style=style,
            captcha=captcha,
            vendor=vendor,
        )
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    headers = {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'{f' {vendor.hosts}' if vendor else ''}; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            + (
                f"; script-src {vendor.hosts}; frame-src {vendor.hosts}; connect-src {vendor.hosts}"
                if vendor
                else ""
            )
        ),
        "Cache-Control": "no-store",
        "Content-Language": language,
        # With no-referrer, forms would be sent with `Origin: null`.
        "Referrer-Policy": "same-origin",
    }
    return HTMLResponse(text, status, headers=headers)
