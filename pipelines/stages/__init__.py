"""One file per measurement. A stage is a pure function from an Arrow batch to Arrow tables, with a name and a version.

What belongs here: what a measurement takes, gives and depends on. Not here: where rows are stored (`store.py`), who runs the function
(`engines/`), and the work on pixels itself (`video/`, inside the sandbox child).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from pipelines.store import fingerprint
from pipelines.tables import Table
from pipelines.video.sandbox import Reply


class MediaCall(Protocol):
    """How a stage reaches media: a task name and a JSON request go to the executor's sandbox child, a Reply comes back."""

    def __call__(self, task: str, request: dict[str, object]) -> Reply: ...


@dataclass(frozen=True)
class Stage:
    """A measurement: `run(batch, params, media)` answers for every key of the batch, with a row or with a failure."""

    name: str
    version: int
    key: str
    outputs: tuple[Table, ...]
    run: Callable[[pa.Table, Mapping[str, object], MediaCall], dict[str, pa.Table]]


@dataclass(frozen=True)
class Work:
    """A stage with its resolved parameters: what a fingerprint names."""

    stage: Stage
    params: Mapping[str, object] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    upstream: Sequence[str] = ()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.stage.name, self.stage.version, self.params, self.weights, self.upstream)
