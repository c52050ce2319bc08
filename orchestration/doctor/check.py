"""A line of the doctor's table, alone so that all kinds of checks can share it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, what it is needed for and, unless it is well, what to do."""

    name: str
    status: Status
    found: str
    needed_for: str
    mend: str = ""

    def __post_init__(self) -> None:
        assert self.status == "ok" or self.mend, f"{self.name}: a line that is not ok says what to do"
