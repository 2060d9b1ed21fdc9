"""Writes the parts of ``docs/reference`` that follow from the code: ``python tools/reference.py``.

A test fails when a page is not what this would write.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleetprompt.directives.failures import FAILURE_CLASSES
from fleetprompt.directives.types import AnyDirectiveType, directive_types
from fleetprompt.settings import Settings
from fleetprompt.telemetry.catalogue import METRICS
from fleetprompt.tenants.keys import ROLES

FOLDER = Path(__file__).parent.parent / "docs" / "reference"


def settings_page() -> str:
    """``settings.md``: every setting with its default."""
    lines = [
        "# Settings",
        "",
        "Read from the environment. Unset means: one machine, embedded PostgreSQL, loopback.",
        "This page is written by `python tools/reference.py`.",
        "",
        "| variable | default | what it does |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        shown = "–" if default is None or default == () else f"`{default}`"
        lines.append(f"| `FLEETPROMPT_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


METRICS_TABLE = "| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n"


def metrics_page() -> str:
    """``metrics.md``: what stands before the table as it is, and every metric."""
    introduction = (FOLDER / "metrics.md").read_text().partition(METRICS_TABLE)[0]
    lines = [
        f"| `{metric.exposed}` | {metric.kind} | {metric.unit or '–'} | "
        f"{', '.join(f'`{label}`' for label in metric.labels) or '–'} | {metric.help} |"
        for metric in METRICS.values()
    ]
    return introduction + METRICS_TABLE + "\n".join(lines) + "\n"


TYPES_TABLE = (
    "| type | params | roles | one attempt | attempts | pause up to | at once | worked off by "
    "| approval | asked for at `POST /directives` |\n|---|---|---|---|---|---|---|---|---|---|\n"
)
FAILURES_TABLE = "| class | means | tried again |\n|---|---|---|\n"


def types_part(types: Mapping[str, AnyDirectiveType]) -> str:
    """A table of the directive types' rules, and what each does and takes in words."""
    known = [kind for _, kind in sorted(types.items())]
    rows = "".join(_type_row(kind) for kind in known)
    words = "".join(
        f"- `{kind.name}`: {kind.summary} Its params: {_words(kind.params.__doc__)}\n"
        for kind in known
    )
    return f"{TYPES_TABLE}{rows}\n{words}"


def _type_row(kind: AnyDirectiveType) -> str:
    approval = "–"
    if kind.approval is not None:
        approval = f"{kind.approval.approvals} of {', '.join(sorted(kind.approval.roles))}"
    cells = (
        f"`{kind.name}`",
        _params(kind.params.model_json_schema()),
        ", ".join(role for role in reversed(ROLES) if role in kind.roles) or "the platform alone",
        f"{kind.timeout:g} s",
        str(kind.retry.max_attempts),
        f"{kind.retry.first_bound:g} s, doubled each time up to {kind.retry.longest_bound:g} s",
        str(kind.concurrency or "–"),
        "the platform" if kind.target == "platform" else "the connector that is named",
        approval,
        "yes" if kind.over_http else "no",
    )
    return f"| {' | '.join(cells)} |\n"


def _params(schema: dict[str, Any]) -> str:
    """The names of the params, with what belongs to each in brackets."""
    parts = []
    for name, given in schema.get("properties", {}).items():
        notes = _values(schema, given)
        if name not in schema.get("required", ()):
            notes.append("optional")
        parts.append(f"`{name}`" + (f" ({', '.join(notes)})" if notes else ""))
    return ", ".join(parts) or "–"


def _values(schema: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """The values that may be chosen from, or the names within an object."""
    inner = schema["$defs"][given["$ref"].rpartition("/")[2]] if "$ref" in given else given
    if "enum" in inner:
        return [" or ".join(f"`{value}`" for value in inner["enum"])]
    return [f"`{name}`" for name in inner.get("properties", {})]


def _words(docstring: str | None) -> str:
    first = inspect.cleandoc(docstring or "").partition("\n\n")[0]
    return first.replace("``", "`").replace("\n", " ")


def failures_part() -> str:
    """The classes of failure, and whether another attempt follows."""
    return FAILURES_TABLE + "".join(
        f"| `{kind}` | {one.means} | {f'yes, {one.retried}' if one.retried else 'no'} |\n"
        for kind, one in FAILURE_CLASSES.items()
    )


def directives_page() -> str:
    """``directives.md``: its prose as it is, and what follows from the registry between its marks."""
    page = (FOLDER / "directives.md").read_text()
    for name, part in (("types", types_part(directive_types())), ("failures", failures_part())):
        start = f"<!-- {name}: python tools/reference.py -->\n\n"
        end = f"\n<!-- /{name} -->\n"
        before, _, rest = page.partition(start)
        _, ended, after = rest.partition(end)
        if not ended:
            raise ValueError(f"directives.md: the part {name!r} has lost its marks")
        page = before + start + part + end + after
    return page


PAGES = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "directives.md": directives_page,
}


def main() -> None:
    """Write every page."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())


if __name__ == "__main__":
    main()
