"""Engines run a stage's function over batches; the executor that computes a batch commits its part and returns the receipt.

What belongs here: scheduling, and nothing that changes a result. Local, Spark and Beam differ only in where `execute` happens, so the
same inputs give the same rows under each. Media never crosses the boundary: rows carry paths in, receipts come back.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.stages import MediaCall, Work
from pipelines.store import Receipt, Store
from pipelines.video.sandbox import Limits

MAX_KEYS_PER_PART = 32

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class EngineSettings:
    """How much of the machine a run may take. Nothing here changes a result, so nothing here enters a fingerprint."""

    workers: int
    """Executors at work at once; each drives one media child."""
    threads: int
    """Decoder threads in each child."""
    limits: Limits

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


class MapMedia(Protocol):
    """`function(item, media)` for every item, on executors that hold a sandbox; results in the order they finish."""

    def __call__(
        self, function: Callable[[Item, MediaCall], Result], items: Iterable[Item], settings: EngineSettings
    ) -> Iterator[Result]: ...


@dataclass(frozen=True)
class Engine:
    """Where stage functions run. `run(work, batches, store, settings)` yields a receipt for each batch, in any order."""

    name: str
    run: Callable[[Work, Sequence[pa.Table], Store, EngineSettings], Iterator[Receipt]]
    map_media: MapMedia


def execute(work: Work, batch: pa.Table, store: Store, media: MediaCall) -> Receipt:
    """What every executor does: compute one batch, write its part, return the receipt.

    Raises:
        RuntimeError: the stage left a key of its batch unanswered, which would lose it silently.
    """
    started = time.perf_counter()
    tables = work.stage.run(batch, work.params, media)
    keys = batch.column(work.stage.key).to_pylist()
    answered = set(tables[work.stage.outputs[0].name].column(work.stage.key).to_pylist())
    if answered != set(keys):
        raise RuntimeError(f"stage {work.stage.name} gave no answer for {sorted(set(keys) ^ answered)[:3]}")
    return store.commit(work.stage.name, work.fingerprint, keys, tables, time.perf_counter() - started)


def cut_batches(rows: pa.Table, key: str, missing: set[str], workers: int) -> list[pa.Table]:
    """Cut `rows` into batches of at most 32 keys, small enough that every worker gets several; largest work first.

    The cuts depend on all rows, sorted by key, and not on what is missing, so a run that was killed and one that was not
    write the same parts; what needs no work is then left out of its batch.
    """
    rows = rows.sort_by(key)
    size = max(1, min(MAX_KEYS_PER_PART, rows.num_rows // (4 * workers)))
    slices = (rows.slice(start, size) for start in range(0, rows.num_rows, size))
    todo = [part.filter(pc.is_in(part.column(key), pa.array(sorted(missing), pa.string()))) for part in slices]
    return sorted((part for part in todo if part.num_rows), key=lambda part: -pc.sum(part.column("size_bytes")).as_py())
