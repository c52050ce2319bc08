"""What the command line shows: progress, the table at the end of a run, errors. Presentation only.

A progress bar on a terminal; plain lines, one for each quarter of a step, otherwise (logs, CI).
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

# Off a terminal rich would fold at 80 columns; a log has no width.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class ProgressLines:
    """A `pipelines.curate.Progress` for this terminal; use as a context manager."""

    _bars: Progress | None = None
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _quarters: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> "ProgressLines":
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description:<24}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        if self._bars:
            if step not in self._tasks:
                self._tasks[step] = self._bars.add_task(step, total=total)
            self._bars.update(self._tasks[step], completed=done, total=total)
        elif total and self._quarters.get(step) != done * 4 // total:
            self._quarters[step] = done * 4 // total
            console.print(f"{step}: {done}/{total}", markup=False)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A short table; numbers are right-aligned."""
    rows = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] in ("", None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)
    console.print()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _plain(str(value))


def _plain(text: str) -> str:
    """Text of unknown origin (file names, FFmpeg's words) without markup or control characters."""
    return "".join(char if char.isprintable() else "�" for char in text).replace("[", r"\[")
