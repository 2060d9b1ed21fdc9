"""Writes the parts of ``docs/reference`` that follow from the code: ``python tools/reference.py``.

A test fails when a page is not what this would write.
"""

from pathlib import Path

from fleetprompt.settings import Settings
from fleetprompt.telemetry.catalogue import METRICS

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


PAGES = {"settings.md": settings_page, "metrics.md": metrics_page}


def main() -> None:
    """Write every page."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())


if __name__ == "__main__":
    main()
