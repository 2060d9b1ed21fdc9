"""The reference says what the code does (T50)."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from fleetprompt.settings import Settings


def _generator(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "reference", repository / "tools" / "reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(repository: Path) -> None:
    generator = _generator(repository)
    for name, make in generator.PAGES.items():
        page = repository / "docs" / "reference" / name
        assert page.read_text() == make(), f"run `python tools/reference.py` to renew {name}"


def test_every_setting_is_described() -> None:
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undescribed == []


def test_every_relative_link_in_the_documents_leads_somewhere(repository: Path) -> None:
    pages = [repository / "README.md", *(repository / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(repository)} → {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
