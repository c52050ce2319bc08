"""What assets are given: the output folder, the inbox and the size of the machine, as one typed resource.

What belongs here: turning configuration into the plain objects that `pipelines` takes. No work.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
from pydantic import Field

from pipelines.curate import Curation
from pipelines.engines import EngineSettings
from pipelines.engines.local import LOCAL
from pipelines.policy import load_policy, shipped_policies
from pipelines.store import open_store
from pipelines.video.sandbox import Limits


class Reels(dg.ConfigurableResource):
    """Where reels come from and where everything goes."""

    out: str = "out/dagster"
    inbox: str = "out/inbox"
    workers: int = 0
    memory_gib: float = 4.0
    overrides: list[str] = Field(default_factory=list)

    def batch_folder(self, batch: str) -> Path:
        """The folder whose files are the batch. Raises ValueError if the name would lead out of the inbox."""
        if not batch or batch.startswith(".") or "/" in batch or "\\" in batch:
            raise ValueError(f"the batch name {batch!r} must be the name of a folder in {self.inbox}")
        return Path(self.inbox, batch)

    @contextlib.contextmanager
    def curation(self, batch: str | None = None, policies: Sequence[str] = ()) -> Iterator[Curation]:
        """A run on this output, holding its lock; without names, for all policies that ship."""
        store = open_store(self.out)
        with store.lock():
            store.clean()
            yield Curation(
                store=store,
                policies=tuple(load_policy(name, self.overrides) for name in policies or shipped_policies()),
                engine=LOCAL,
                settings=EngineSettings(
                    self.workers or os.cpu_count() or 1, 1, Limits(memory_bytes=int(self.memory_gib * 2**30))
                ),
                batch=batch,
            )
