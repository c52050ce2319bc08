"""What a report is made of: the stored tables of one run, and light records of its policies and stages.

What belongs here: the records and their validation. Nothing is read from disk here and no clock is asked: the run's date
comes in as text, so that the same data gives the same page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy import Decisions, Policy
from pipelines.tables import (
    CLIPS,
    DECISIONS,
    FAILURES,
    INPUTS,
    KEYFRAMES,
    SCANS,
    SELECTION,
    SHOTS,
    SIGNALS,
    VIDEOS,
    Table,
)


@dataclass(frozen=True)
class ReportPolicy:
    """A policy, what it decided, and the measurements that it decided from.

    `outcome` holds this policy's rows and no others. `measurements` has the tables `scans`, `shots`, `clips` and `signals` by name
    (others are ignored): policies with other scan parameters have other clips. `keyframes` needs only the rows of
    `shown_clips(policy)`. `bucket_bytes` is the size of what lies in the shards by bucket, empty if nothing was exported.
    """

    policy: Policy
    outcome: Decisions
    measurements: Mapping[str, pa.Table]
    keyframes: pa.Table = field(default_factory=KEYFRAMES.schema.empty_table)
    bucket_bytes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in (SCANS, SHOTS, CLIPS, SIGNALS):
            if table.name not in self.measurements:
                raise ValueError(
                    f"policy {self.policy.name!r}: measurements lack {table.name!r}; got {sorted(self.measurements)}"
                )
            _require(self.measurements[table.name], table)
        _require(self.keyframes, KEYFRAMES)
        for rows, table in ((self.outcome.decisions, DECISIONS), (self.outcome.selection, SELECTION)):
            _require(rows, table)
            strangers = set(pc.unique(rows["policy"]).to_pylist()) - {self.policy.name}
            if strangers:
                raise ValueError(
                    f"policy {self.policy.name!r} was given {table.name} of {sorted(strangers)}; filter them first"
                )

    @cached_property
    def said(self) -> Mapping[str, pa.Table]:
        """The decisions by gate."""
        rows = self.outcome.decisions
        return {gate: rows.filter(pc.field("gate") == gate) for gate in pc.unique(rows["gate"]).to_pylist()}

    @cached_property
    def rejects(self) -> pa.Table:
        """(subject_id, gate) of every rejection."""
        return self.outcome.decisions.filter(pc.field("verdict") == "reject").select(["subject_id", "gate"])

    @property
    def clips(self) -> pa.Table:
        """The clips that this policy judged."""
        return self.measurements["clips"]

    @property
    def shots(self) -> pa.Table:
        """The shots that they were cut from."""
        return self.measurements["shots"]


@dataclass(frozen=True)
class StageRun:
    """What became of one stage in the run: units of work by outcome, busy seconds, and what its results hang on."""

    name: str
    fingerprint: str
    done: int
    reused: int
    failed: int
    busy_s: float
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything on the page. Tables follow `pipelines/tables.py`; extra columns and any row order are fine.

    `out` is the output folder as the reader would type it; `date` and `facts` are any text, shown as they are.
    """

    inputs: pa.Table
    videos: pa.Table
    failures: pa.Table
    policies: tuple[ReportPolicy, ...] = ()
    stages: tuple[StageRun, ...] = ()
    out: str = "OUT"
    date: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in (INPUTS, VIDEOS, FAILURES):
            _require(getattr(self, table.name), table)

    @property
    def scan_groups(self) -> list[list[ReportPolicy]]:
        """The policies, those that judged the same clips together."""
        groups: list[list[ReportPolicy]] = []
        for one in self.policies:
            same = [group for group in groups if group[0].clips.equals(one.clips)]
            if same:
                same[0].append(one)
            else:
                groups.append([one])
        return groups


def _require(batch: pa.Table, table: Table) -> None:
    missing = set(table.schema.names) - set(batch.column_names)
    if missing:
        raise ValueError(f"table {table.name} lacks {sorted(missing)}; pass it through tables.conform first")
