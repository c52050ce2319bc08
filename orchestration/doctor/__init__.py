"""`reelmill doctor`: what works on this machine, what it is needed for, and how to mend what does not.

What belongs here: running the checks and showing them. A check is a small function that tries the thing rather than asking for
its version, where that is possible: `machine.py` and `software.py`. Nothing heavy is imported: media libraries are tried in the
sandbox child and torch in a process of its own.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestration.doctor import machine, software
from orchestration.doctor.check import Check
from pipelines import weights

__all__ = ["Check", "exit_code", "render", "run_checks"]

UI_PORT = 3000


def run_checks(out: Path = Path("out"), cache_dir: Path | None = None, port: int = UI_PORT) -> list[Check]:
    """All checks, a few at a time (children and Java take seconds, and mostly wait), in the order in which they are shown."""
    cache = cache_dir or weights.default_cache_dir()
    checks: list[Callable[[], Iterator[Check]]] = [
        machine.check_python,
        machine.check_machine,
        software.check_video,
        software.check_sandbox,
        software.check_opencv,
        partial(machine.check_folder, "output folder", out, "clips, tables and shards"),
        partial(machine.check_folder, "cache folder", cache, "weights and sample videos"),
        partial(software.check_weights, cache_dir),
        software.check_extras,
        machine.check_gpus,
        machine.check_java,
        software.check_dagster,
        partial(machine.check_port, port),
    ]
    with ThreadPoolExecutor(4) as pool:
        return [line for lines in pool.map(lambda check: list(check()), checks) for line in lines]


def exit_code(checks: list[Check]) -> int:
    """1 if something fails that the main job needs, else 0."""
    return int(any(check.status == "fail" for check in checks))


def render(checks: list[Check], console: Console) -> None:
    """The checks as a table; then, for each that is not well, what to do."""
    marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "what", "found", "needed for"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(marks[check.status], escape(check.name), escape(check.found), escape(check.needed_for))
    console.print(table)
    for status in ("fail", "warn"):
        for check in checks:
            if check.status == status:
                console.print(f"{marks[status]} {escape(check.name)}: {escape(check.mend)}", soft_wrap=True)
