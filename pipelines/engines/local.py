"""The local engine: threads of this process, each driving a media child of its own.

The heavy work happens in the children, which are processes already (`video/sandbox.py`), so a second layer of worker processes would
only add memory and a pickle boundary. A crash or a hang costs the child and one row, never a worker.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

import pyarrow as pa

from pipelines.engines import Engine, EngineSettings, Item, Result, execute
from pipelines.stages import MediaCall, Work
from pipelines.store import Receipt, Store
from pipelines.video.sandbox import Reply, Sandbox


class RunStopped(Exception):
    """The run is ending; whatever was in flight stays uncomputed."""


def run(work: Work, batches: Sequence[pa.Table], store: Store, settings: EngineSettings) -> Iterator[Receipt]:
    """Execute every batch on `settings.workers` threads; receipts come as parts are committed."""
    return map_media(lambda batch, media: execute(work, batch, store, media), batches, settings)


def map_media(
    function: Callable[[Item, MediaCall], Result], items: Iterable[Item], settings: EngineSettings
) -> Iterator[Result]:
    """`function(item, media)` for every item, on threads that each hold a sandbox; results come in the order they finish.

    Ctrl-C and an error in one item stop the others: items not yet begun are dropped, children are ended.
    """
    stop = threading.Event()
    local = threading.local()
    with ExitStack() as children, ThreadPoolExecutor(settings.workers, thread_name_prefix="reelmill") as pool:
        children_lock = threading.Lock()

        def media(task: str, request: dict[str, object]) -> Reply:
            if not hasattr(local, "sandbox"):
                with children_lock:
                    local.sandbox = children.enter_context(Sandbox(settings.limits))
            reply = local.sandbox.call(task, {"threads": settings.threads} | request)
            if stop.is_set():
                raise RunStopped(task)  # the child may have been ended by us: its failure is no fact about the video
            return reply

        def one(item: Item) -> Result | None:
            return None if stop.is_set() else function(item, media)

        pending: set[Future[Result | None]] = {pool.submit(one, item) for item in items}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    if result is not None:
                        yield result
        finally:
            stop.set()
            for future in pending:
                future.cancel()
            if pending:
                children.close()


LOCAL = Engine(name="local", run=run, map_media=map_media)
