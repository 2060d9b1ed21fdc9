"""What visitors write, brought to the form that is stored: PostgreSQL refuses NUL, people read the rest."""

import re
import unicodedata
from urllib.parse import urlsplit

from fleetprompt.errors import InvalidError

TEXT_LIMIT = 4000
NAME_LIMIT = 100
EMAIL_LIMIT = 254
PAGE_LIMIT = 2048

_KEPT_CONTROLS = "\n\t"
_JOINERS = "\u200c\u200d"  # Persian and Indic scripts and emoji need them
_EMAIL = re.compile(r"[^@\s<>\"(),:;\\\x00-\x20]{1,64}@[^@\s<>\"(),:;\\\x00-\x20]{1,189}", re.ASCII)


def message_text(text: str) -> str:
    """A message of 1 to 4,000 characters after NFC, with ``\\n`` and tabs as the only controls."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = "".join(
        char for char in lines if char in _KEPT_CONTROLS or unicodedata.category(char) != "Cc"
    )
    found = unicodedata.normalize("NFC", kept).strip()
    if not 0 < len(found) <= TEXT_LIMIT or not _storable(found):
        raise _refused("/text", f"1 to {TEXT_LIMIT} characters")
    return found


def checked_name(name: object) -> str | None:
    """A name without control, bidi-override and zero-width characters, None for an empty one."""
    if name is None:
        return None
    if not isinstance(name, str) or len(name) > 4 * NAME_LIMIT or not _storable(name):
        raise _refused("/name", f"at most {NAME_LIMIT} characters")
    kept = "".join(
        char for char in name if char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf")
    )
    found = " ".join(unicodedata.normalize("NFC", kept).split()).strip(_JOINERS)
    if len(found) > NAME_LIMIT:
        raise _refused("/name", f"at most {NAME_LIMIT} characters")
    return found or None


def checked_email(email: object) -> str | None:
    """An e-mail address as it was given, None for an empty one."""
    if email is None or email == "":
        return None
    if not isinstance(email, str) or not _EMAIL.fullmatch(email.strip()):
        raise _refused("/email", f"an e-mail address of at most {EMAIL_LIMIT} characters")
    return email.strip()


def page_address(url: str | None) -> str | None:
    """Origin and path of an http or https page, None for what is none: nobody's link is made of it."""
    if url is None or len(url) > PAGE_LIMIT or not url.isprintable() or not _storable(url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path}"


def _storable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _refused(pointer: str, detail: str) -> InvalidError:
    return InvalidError(errors=[{"pointer": pointer, "detail": detail}])
