"""The lines that put Charla's chat on a website, behind the visitor's consent.

Charla describes no interface, so nothing of it is known but what the tenant copied from it: a script's
address, the name of the object that it reads, and a key (seed 004 §11). The lines are written from these
alone, each checked and escaped. Before the visitor agrees, nothing is loaded and nothing is stored; on pages
that are not on the site's list, nothing happens; no name, address or text of a visitor is passed on.
"""

import json
from importlib.resources import files

from fleetprompt.errors import ConflictError
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.site_settings import Language, SiteSettings, text_colour_on
from fleetprompt.webchat.tenant_settings import ChatSettings

# What would end the script's element, open a comment in it, or end a line in it.
_IN_SCRIPT = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_AGREE: dict[Language, str] = {
    **{"en": "I agree", "de": "Einverstanden", "fr": "J’accepte"},
    **{"es": "Acepto", "ar": "أوافق", "ja": "同意します"},
}
_CLOSE: dict[Language, str] = {
    **{"en": "Close", "de": "Schließen", "fr": "Fermer"},
    **{"es": "Cerrar", "ar": "إغلاق", "ja": "閉じる"},
}
_CONSENT = (
    "This chat is provided by Charla. With your consent its program is loaded from Charla's server, which "
    "then learns your address and this page's."
)


def charla_snippet(site: ChatSite, chat: ChatSettings) -> str:
    """One ``script`` element for the site's pages.

    ConflictError where the site is another mode's or switched off, or where an address of its pages,
    Charla's script or the site's key is missing.
    """
    if site.mode != "charla_embed":
        raise ConflictError(f"The site's mode is {site.mode}; it embeds this platform's widget.")
    if site.status != "active":
        raise ConflictError("The site is switched off.")
    if not site.origins:
        raise ConflictError(
            "No address of the site's pages is allowed, so no page may embed the chat."
        )
    settings = SiteSettings.model_validate(site.settings)
    if chat.charla_script_url is None:
        raise ConflictError("Set the address of Charla's script in the package website_chat.")
    if settings.charla_property_key is None:
        raise ConflictError("Set Charla's key in the site's settings (charla_property_key).")
    consent = settings.consent
    values = {
        "origins": site.origins,
        "script": chat.charla_script_url,
        "object": chat.charla_object,
        "settings": {chat.charla_key_name: settings.charla_property_key},
        "title": settings.title or site.name,
        "text": consent.text if consent else _CONSENT,
        "link": consent.link if consent else None,
        "agree": _AGREE[settings.language],
        "close": _CLOSE[settings.language],
        "version": consent.version if consent else "1",
        "accent": settings.theme.accent,
        "onAccent": text_colour_on(settings.theme.accent),
    }
    program = files("fleetprompt.webchat").joinpath("charla.js").read_text(encoding="utf-8")
    return f"<script>\n{program.strip()}({_literal(values)});\n</script>\n"


def _literal(value: object) -> str:
    """JSON that is JavaScript too and cannot end the element that it stands in (HTML §4.12.1.3)."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for found, written in _IN_SCRIPT.items():
        text = text.replace(found, written)
    return text
