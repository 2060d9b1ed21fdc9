"""Whether a site is open now, and when it opens next, in the visitor's language."""

from datetime import datetime, timedelta
from typing import Any, get_args
from zoneinfo import ZoneInfo

from fleetprompt.webchat.site_settings import Hours, Language, Texts, Weekday

_DAYS: dict[Language, tuple[str, ...]] = {
    "ar": ("الاثنين", "الثلاثاء", "الأربعاء", "الخميس", "الجمعة", "السبت", "الأحد"),
    "de": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "es": (
        "el lunes",
        "el martes",
        "el miércoles",
        "el jueves",
        "el viernes",
        "el sábado",
        "el domingo",
    ),
    "fr": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    "ja": ("月曜日", "火曜日", "水曜日", "木曜日", "金曜日", "土曜日", "日曜日"),
}
# On the same day, and on another one.
_BACK: dict[Language, tuple[str, str]] = {
    "ar": ("نعود في الساعة {time}", "نعود يوم {day} في الساعة {time}"),
    "de": ("Wieder da um {time} Uhr", "Wieder da am {day} um {time} Uhr"),
    "en": ("Back at {time}", "Back on {day} at {time}"),
    "es": ("Volvemos a las {time}", "Volvemos {day} a las {time}"),
    "fr": ("De retour à {time}", "De retour {day} à {time}"),
    "ja": ("{time}に再開します", "{day}の{time}に再開します"),
}
_WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


def hours_view(
    hours: Hours | None, texts: Texts, language: Language, now: datetime
) -> dict[str, Any] | None:
    """``{"open", "text", "away"}`` at this moment, None where the site is always open."""
    if hours is None:
        return None
    local = now.astimezone(ZoneInfo(hours.zone))
    is_open = _open_at(hours, local)
    text = (texts.open or hours.text) if is_open else _back(hours, local, language)
    return {"open": is_open, "text": text, "away": None if is_open else texts.away or hours.away}


def _open_at(hours: Hours, local: datetime) -> bool:
    clock = f"{local:%H:%M}"
    spans = hours.week.get(_WEEKDAYS[local.weekday()], [])
    return any(start <= clock < end for start, end in spans)


def _back(hours: Hours, local: datetime, language: Language) -> str | None:
    for days in range(8):
        day = (local + timedelta(days=days)).weekday()
        starts = [start for start, _ in hours.week.get(_WEEKDAYS[day], [])]
        coming = [start for start in starts if days > 0 or start > f"{local:%H:%M}"]
        if coming:
            pattern = _BACK[language][0 if days == 0 else 1]
            return pattern.format(day=_DAYS[language][day], time=min(coming).removeprefix("0"))
    return None
