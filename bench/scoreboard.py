"""Bars, tables and the result file, the same for every command."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.setup import VAR

console = Console(highlight=False)


class Bar(msgspec.Struct, frozen=True):
    """One promise, and what was reached. `reached` is None where it could not be measured."""

    what: str
    bar: float
    reached: float | None
    unit: str = ""
    at_most: bool = False

    @property
    def cleared(self) -> bool:
        if self.reached is None:
            return False
        return self.reached <= self.bar if self.at_most else self.reached >= self.bar


def show_conditions(conditions: dict[str, str]) -> None:
    table = Table("condition", "", title="Conditions", title_justify="left")
    for name, value in conditions.items():
        table.add_row(name.replace("_", " "), value)
    console.print(table)


def show_bars(bars: list[Bar]) -> None:
    table = Table("figure", "bar", "reached", "", title="Bars", title_justify="left")
    for bar in bars:
        sign = "≤" if bar.at_most else "≥"
        reached = "not measured" if bar.reached is None else f"{number(bar.reached)} {bar.unit}"
        verdict = "[green]cleared[/]" if bar.cleared else "[red]missed[/]"
        table.add_row(bar.what, f"{sign} {number(bar.bar)} {bar.unit}", reached, verdict)
    console.print(table)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def save(name: str, conditions: dict[str, str], bars: list[Bar], **more: object) -> Path:
    judged = [{"cleared": bar.cleared, **msgspec.structs.asdict(bar)} for bar in bars]
    folder = VAR / "results"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    content = msgspec.json.encode({"conditions": conditions, "bars": judged, **more})
    path.write_bytes(msgspec.json.format(content, indent=2) + b"\n")
    console.print(f"written to {path.relative_to(Path.cwd())}", soft_wrap=True)
    return path
