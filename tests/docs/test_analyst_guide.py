"""The analyst's guide and its notebook run as they are printed."""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient

from fleetprompt.ids import new_id
from fleetprompt.lake.columns import SIGNALS, parquet_schema
from fleetprompt.lake.counts import write_counts
from fleetprompt.lake.layout import day_file, replacing
from fleetprompt.lake.questions import QUESTIONS

DAY = date(2026, 3, 8)


def signal(kind: str, **typed: object) -> dict[str, Any]:
    """A row as the lake's writer makes it."""
    at = datetime(2026, 3, 8, 12, tzinfo=UTC)
    empty = dict.fromkeys(column.name for column in SIGNALS.columns)
    found = {"id": str(new_id()), "type": kind, "source": "test", "occurred_at": at}
    return {**empty, **found, "inserted_at": at, "data": "{}", "metadata": "{}", **typed}


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the guide's readers are in, with a lake of the tenant ``acme``."""
    rows = [
        signal("agent.execution.completed", execution_id="1", agent="triage", cost_usd=0.25),
        signal("agent.execution.failed", execution_id="2", agent="triage", error_kind="network"),
        signal("email.inbound.received", data='{"from": "a@example.org", "subject": "Hello"}'),
    ]
    lake = tmp_path / ".fleetprompt" / "lake"
    with replacing(day_file(lake, SIGNALS, "acme", DAY)) as unfinished:
        pq.write_table(pa.Table.from_pylist(rows, schema=parquet_schema(SIGNALS)), unfinished)
    write_counts(lake, "acme", DAY)
    monkeypatch.chdir(tmp_path)
    return lake


def test_every_example_of_the_guide_runs(
    acme: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (repository / "docs/analyst/README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "guide", "exec"), namespace)  # noqa: S102 - our own guide
    shown = capsys.readouterr().out
    assert "email.inbound.received" in shown
    assert "network" in shown
    namespace["lake"].close()


def test_every_table_column_and_question_is_described(repository: Path) -> None:
    guide = (repository / "docs/analyst/README.md").read_text()
    for column in SIGNALS.columns:
        assert f"`{column.name}`" in guide, column.name
    for question in QUESTIONS:
        assert f"| `{question.name}` |" in guide, question.name


def test_the_notebook_runs(acme: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETPROMPT_LAKE_DIR", str(acme))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    # Its folder for sockets and history is this test's own.
    monkeypatch.setenv("IPYTHONDIR", str(acme.parent / "ipython"))
    notebook: Any = nbformat.read(repository / "docs/analyst/tour.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = "\n".join(
        output.data.get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    )
    for expected in ("triage", "0.25", "network", "a@example.org", "email.inbound.received"):
        assert expected in shown
