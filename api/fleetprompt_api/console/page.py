"""Drawing a page: the templates, the headers of every page, and what every template may use."""

from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from fleetprompt.clock import system_clock
from fleetprompt.sessions.service import SignedIn
from fleetprompt_api.console import static, wording

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    # Not no-referrer: with that, forms are sent with `Origin: null`, which nobody can tell from a
    # stranger's (WHATWG Fetch, "append a request Origin header").
    "Referrer-Policy": "same-origin",
}

# Name in the navigation → address.
NAVIGATION = {
    "Overview": "/console",
    "Approvals": "/console/approvals",
    "Inbox": "/support/webchat/conversations",
    "Packages": "/console/installations",
    "Directives": "/console/directives",
    "Executions": "/console/executions",
    "Signals": "/console/signals",
    "Connectors": "/console/connectors",
    "Timeline": "/console/timeline",
}


@lru_cache(maxsize=1)
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("fleetprompt_api.console", "templates"),
        # Everything, whatever a template's name ends with.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        when=wording.when,
        at_time=wording.at_time,
        said=wording.said,
        shown=wording.shown,
        state_class=wording.state_class,
        state_words=wording.state_words,
        as_json=wording.as_json,
        span=wording.span,
        took=wording.took,
        timeline_page=wording.timeline_page,
    )
    made.globals.update(static=static.address, navigation=NAVIGATION, until=wording.until)
    return made


def render(
    template: str,
    *,
    visitor: SignedIn | None,
    status: int = 200,
    now: datetime | None = None,
    here: str | None = None,
    **values: Any,
) -> HTMLResponse:
    """The page; ``here`` is the entry of the navigation that it belongs to."""
    text = (
        _templates()
        .get_template(template)
        .render(visitor=visitor, status=status, now=now or system_clock(), here=here, **values)
    )
    return HTMLResponse(text, status, headers=HEADERS)


def address_with(path: str, **query: object) -> str:
    """An address with those parts of its query that are given."""
    given = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
