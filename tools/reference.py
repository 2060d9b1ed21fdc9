"""Writes the parts of ``docs/reference`` that follow from the code: ``python tools/reference.py``.

A test fails when a page is not what this would write.
"""

from pathlib import Path

from fleetprompt.settings import Settings

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


PAGES = {"settings.md": settings_page}


def main() -> None:
    """Write every page."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())


if __name__ == "__main__":
    main()
