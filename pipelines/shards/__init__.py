"""WebDataset shards: written from a selection, indexed, verified, read. docs/shards.md describes the format.

What belongs here: tars, their index and manifest. What does not: why a clip was selected (`policy`), how it is cut
(`video/export.py`, reached through a callable), how a training run orders samples (`training`).
"""

from pipelines.shards.reading import BucketStats, Shards, ShardsError, StoredSample, open_shards, read_sample, stats
from pipelines.shards.samples import ExportFailure, ExportItem, Packing, Sample, spread_order
from pipelines.shards.verifying import Problem, VerifyReport, verify
from pipelines.shards.writing import RunExports, WriteReport, write

__all__ = [
    "BucketStats",
    "ExportFailure",
    "ExportItem",
    "Packing",
    "Problem",
    "RunExports",
    "Sample",
    "Shards",
    "ShardsError",
    "StoredSample",
    "VerifyReport",
    "WriteReport",
    "open_shards",
    "read_sample",
    "spread_order",
    "stats",
    "verify",
    "write",
]
