"""A figure beside what it is compared with."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Ratio:
    """``value`` against ``against``, both measured in this run, in ``unit``."""

    name: str
    value: float
    against_name: str
    against: float
    unit: str
    target: float

    @property
    def ratio(self) -> float:
        """How many times as much."""
        return self.value / self.against

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.ratio >= self.target

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "ratio": round(self.ratio, 2), "met": self.met}


@dataclass(frozen=True)
class Bound:
    """``value`` in ``unit``, which may be at most ``most``; ``beside`` is another's, for comparison."""

    name: str
    value: float
    unit: str
    most: float
    beside_name: str = ""
    beside: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is within the bound."""
        return self.value <= self.most

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "met": self.met}


def _digits(value: float) -> str:
    """As many as tell something."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def show(console: Console, ratios: list[Ratio]) -> None:
    """All of them as a table; nothing if there are none."""
    if not ratios:
        return
    table = Table(title="Measured in this run, on this machine", title_justify="left", box=None)
    for column in ("what", "figure", "compared with", "figure", "ratio", "target", ""):
        table.add_column(column)
    for one in ratios:
        table.add_row(
            one.name,
            f"{_digits(one.value)} {one.unit}",
            one.against_name,
            f"{_digits(one.against)} {one.unit}",
            f"{one.ratio:.2f}×",
            f"≥ {one.target}×",
            "met" if one.met else "NOT MET",
        )
    console.print(table)


def show_bounds(console: Console, bounds: list[Bound]) -> None:
    """Figures that have a bound of their own, as a table; nothing if there are none."""
    if not bounds:
        return
    table = Table(title="Measured in this run, on this machine", title_justify="left", box=None)
    for column in ("what", "figure", "beside", "figure", "target", ""):
        table.add_column(column)
    for one in bounds:
        table.add_row(
            one.name,
            f"{one.value:,.1f} {one.unit}",
            one.beside_name,
            "" if one.beside is None else f"{one.beside:,.1f} {one.unit}",
            f"≤ {one.most:g} {one.unit}",
            "met" if one.met else "NOT MET",
        )
    console.print(table)
