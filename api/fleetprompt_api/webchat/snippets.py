"""The lines that put the chat on a website."""

from dataclasses import dataclass, field
from html import escape

from fleetprompt.errors import NotFoundError
from fleetprompt.settings import Settings
from fleetprompt.webchat.charla import charla_snippet
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.site_settings import SiteSettings, text_colour_on
from fleetprompt.webchat.tenant_settings import ChatSettings
from fleetprompt_api.widget_files import LOADER, current_build

_WORDS = {
    **{"en": "Chat with us", "de": "Mit uns chatten", "fr": "Discuter avec nous"},
    **{"es": "Chatee con nosotros", "ar": "تحدّث معنا", "ja": "チャットで問い合わせる"},
}


@dataclass(frozen=True, slots=True)
class Snippet:
    """See ``sites.SnippetView``."""

    html: str
    pinned_html: str | None = None
    integrity: str | None = None
    content_security_policy: dict[str, str] = field(default_factory=dict)
    plain_page: str | None = None


def snippet_of(site: ChatSite, chat: ChatSettings, settings: Settings) -> Snippet:
    """What a site's pages need; ConflictError where something for Charla's lines is missing."""
    if site.mode == "charla_embed":
        return Snippet(charla_snippet(site, chat))
    try:
        build = current_build(settings)
    except NotFoundError:
        build = None
    pinned = integrity = None
    if build is not None:
        integrity = build.integrity
        # Integrity is checked of answers that may be read, hence anonymously across origins.
        checked = {"integrity": integrity, "crossorigin": "anonymous"}
        pinned = _html(site, settings, build.pinned, checked)
    return Snippet(
        html=_html(site, settings, LOADER, {}),
        pinned_html=pinned,
        integrity=integrity,
        content_security_policy={"script-src": settings.api_url, "connect-src": settings.api_url},
        plain_page=_plain_page(site, settings),
    )


def _html(site: ChatSite, settings: Settings, file: str, more: dict[str, str]) -> str:
    chosen = SiteSettings.model_validate(site.settings)
    attributes = {
        "src": f"{settings.api_url}/widget/v1/{file}",
        **more,
        "data-site": site.site_key,
        "data-accent": chosen.theme.accent,
        "data-on": text_colour_on(chosen.theme.accent),
        **({"data-side": "start"} if chosen.theme.side == "start" else {}),
    }
    shown = " ".join(f'{name}="{escape(value)}"' for name, value in attributes.items())
    return (
        f"<script async {shown}></script>\n"
        f'<noscript><a href="{escape(_plain_page(site, settings))}">'
        f"{_WORDS[chosen.language]}</a></noscript>"
    )


def _plain_page(site: ChatSite, settings: Settings) -> str:
    return f"{settings.api_url}/chat/{site.site_key}"
