"""The page's documents: HTML without a script, in the light or the dark as the reader has it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from fleetprompt_edge import __version__
from fleetprompt_edge.condition import Condition
from fleetprompt_edge.doctor.findings import Finding
from fleetprompt_edge.profile import Profile

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #5b6675;
  --line: #dfe3e8; --good: #176b45; --good-ground: #e3f4ea; --bad: #9c2a1c; --bad-ground: #fcebe8 }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c; --card: #1a2028; --ink: #e6eaf0;
  --soft: #9aa6b4; --line: #2c3540; --good: #7fd4a8; --good-ground: #173427; --bad: #ff9d8c;
  --bad-ground: #3d1d18 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 44rem; margin: 0 auto; padding: 2rem 1rem 3rem }
header { display: flex; justify-content: space-between; gap: 1rem; color: var(--soft); font-size: .875rem }
h1 { margin: .75rem 0 1.25rem; padding: 1rem 1.25rem; border-radius: .75rem; font-size: 1.375rem;
  line-height: 1.3; overflow-wrap: anywhere }
h1.good { color: var(--good); background: var(--good-ground) }
h1.bad { color: var(--bad); background: var(--bad-ground) }
h2 { margin: 2rem 0 .5rem; font-size: 1rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; overflow: hidden }
.card > * { margin: 0; padding: .75rem 1.25rem }
.card > * + * { border-top: 1px solid var(--line) }
dl.card > div { display: flex; justify-content: space-between; gap: 1.5rem }
dt { color: var(--soft) }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
ul { margin: 0; padding: 0; list-style: none }
li { overflow-wrap: anywhere }
li p { margin: .125rem 0 0; color: var(--soft) }
.state { float: right; font-size: .875rem }
.state.well { color: var(--good) } .state.bad { color: var(--bad) } .state.skipped { color: var(--soft) }
nav { margin-top: 1.5rem } a { color: inherit } footer { margin-top: 2rem; color: var(--soft);
  font-size: .875rem }
"""
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_STATES = {"well": "well", "bad": "to mend", "skipped": "not looked at"}


def status_page(found: Condition, profile: Profile) -> str:
    """How the connector is; the browser asks again every ten seconds."""
    count = len(found.problems)
    title = (
        "All is well"
        if found.well
        else f"{count} {'thing is' if count == 1 else 'things are'} not well"
    )
    parts = [_title(title, good=found.well)]
    if found.problems:
        entries = (
            _entry(f"{one['place']}: {one['message']}", one.get("remedy", ""))
            for one in found.problems
        )
        parts.append(f'<ul class="card">{"".join(entries)}</ul>')
    looks = {name: _moment(at) for name, at in found.last_poll_at.items()}
    parts.append(_rows("Folders – last look", looks))
    waiting = found.queue["signals"]
    rows = {
        "Process": str(found.process) if found.process else "none",
        "Account": profile.bridge.username,
        "FleetPrompt": profile.fleetprompt.base_url,
        "Last signal taken by FleetPrompt": _moment(found.last_post_at),
        "Signals waiting": f"{waiting} ({found.queue['bytes'] / 1000:.0f} kB)"
        if waiting
        else "none",
        "Signals refused": str(found.dead_letters or "none"),
        "Mails told": f"{found.mails.get('emitted', 0):,}",
        "Connector": found.connector_id,
    }
    parts.append(_rows("Connector", rows))
    parts.append('<nav><a href="checks">Check everything</a> (takes a few seconds)</nav>')
    return _document(title, parts, refresh=True)


def checks_page(findings: Sequence[Finding]) -> str:
    """What the doctor found."""
    bad = sum(one.state == "bad" for one in findings)
    title = f"{bad} {'thing' if bad == 1 else 'things'} to mend" if bad else "Every check went well"
    entries = (
        _entry(f"{one.name}: {one.message}".rstrip(": "), one.remedy, one.state) for one in findings
    )
    parts = [
        _title(title, good=not bad),
        f'<ul class="card">{"".join(entries)}</ul>',
        '<nav><a href="./">Back</a></nav>',
    ]
    return _document(title, parts)


def failure_page(message: str, remedy: str) -> str:
    """Why there is nothing to show."""
    return _document(message, [_title(message, good=False), f"<p>{escape(remedy)}</p>"])


def _title(text: str, *, good: bool) -> str:
    return f'<h1 class="{"good" if good else "bad"}">{escape(text)}</h1>'


def _entry(text: str, remedy: str, state: str = "") -> str:
    shown = f'<span class="state {state}">{_STATES[state]}</span>' if state else ""
    more = f"<p>{escape(remedy)}</p>" if remedy else ""
    return f"<li>{shown}{escape(text)}{more}</li>"


def _rows(heading: str, rows: dict[str, str]) -> str:
    if not rows:
        return ""
    listed = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in rows.items()
    )
    return f'<h2>{escape(heading)}</h2><dl class="card">{listed}</dl>'


def _moment(stamped: str | None) -> str:
    """A time in UTC as a person reads it, with how long ago it was."""
    if not stamped:
        return "never"
    then = datetime.fromisoformat(stamped.replace("Z", "+00:00"))
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    ago = next(
        (f"{seconds // size} {name}" for size, name in _UNITS if seconds >= size), f"{seconds} s"
    )
    return f"{then:%Y-%m-%d %H:%M:%S} UTC, {ago} ago"


def _document(title: str, parts: Sequence[str], *, refresh: bool = False) -> str:
    again = '<meta http-equiv="refresh" content="10">' if refresh else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{again}<title>{escape(title)} – FleetPrompt connector</title><style>{_STYLE}</style></head>"
        f"<body><main><header><span>FleetPrompt connector</span><span>version {__version__}</span></header>"
        f"{''.join(parts)}"
        "<footer>Shown on this machine only; nothing can be changed here.</footer></main></body></html>"
    )
