"""What a step of the graph reports while it runs and when it has ended. Records only; the steps are `curate.py`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called with (step, done, total) as work goes on."""


def quiet(step: str, done: int, total: int) -> None:
    """A Progress that tells nobody."""


@dataclass(frozen=True)
class StepResult:
    """What a step did: `done` now, `reused` from before, `failed` with a reason; `facts` are for people and for Dagster."""

    step: str
    key: str
    done: int
    reused: int
    failed: int
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Counter:
    """Counts a step's progress; threads may share it."""

    progress: Progress
    step: str
    total: int
    done: int = 0

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        self.progress(self.step, self.done, self.total)
