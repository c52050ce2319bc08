"""The curation graph as Dagster assets: each runs one step of `pipelines.curate` and shows what came of it.

What belongs here: names, partitions, dependencies, descriptions. No logic: a step that needs an `if` needs it in `pipelines`.
"""

from collections.abc import Iterator

import dagster as dg

from orchestration import metadata
from orchestration.partitions import BATCHES, POLICIES
from orchestration.resources import Reels
from pipelines import curate
from pipelines.ingest import find
from pipelines.stages.probe import PROBE
from pipelines.stages.scan import SCAN
from pipelines.tables import CLIPS, DECISIONS, INPUTS, KEYFRAMES, SCANS, SELECTION, SHOTS, SIGNALS, VIDEOS, Table

OWNERS = ["team:reelmill"]
MEASURED = (SCANS, SHOTS, CLIPS, SIGNALS, KEYFRAMES)
DECIDED = (DECISIONS, SELECTION)


def _spec(table: Table, group: str, deps: list[dg.AssetDep | str], version: int = 1) -> dg.AssetSpec:
    return dg.AssetSpec(
        table.name,
        description=table.about,
        group_name=group,
        owners=OWNERS,
        kinds={"parquet"},
        deps=deps,
        code_version=str(version),
        metadata={"dagster/column_schema": metadata.column_schema(table)},
    )


@dg.asset(
    partitions_def=BATCHES,
    group_name="ingest",
    owners=OWNERS,
    kinds={"parquet"},
    code_version="1",
    description=INPUTS.about,
    metadata={"dagster/column_schema": metadata.column_schema(INPUTS)},
)
def inputs(context: dg.AssetExecutionContext, reels: Reels) -> dg.MaterializeResult:
    with reels.curation(context.partition_key) as run:
        step = curate.ingest_step(run, find([reels.batch_folder(context.partition_key)]))
        return dg.MaterializeResult(metadata=metadata.of_step(step) | metadata.of_states(step))


@dg.multi_asset(name="probe", specs=[_spec(VIDEOS, "measure", ["inputs"], PROBE.version)], partitions_def=BATCHES)
def probe(context: dg.AssetExecutionContext, reels: Reels) -> Iterator[dg.MaterializeResult]:
    with reels.curation(context.partition_key) as run:
        step = curate.probe_step(run)
        yield dg.MaterializeResult(VIDEOS.name, metadata=metadata.of_step(step))


@dg.multi_asset(
    name="scan", specs=[_spec(table, "measure", ["videos"], SCAN.version) for table in MEASURED], partitions_def=BATCHES
)
def scan(context: dg.AssetExecutionContext, reels: Reels) -> Iterator[dg.MaterializeResult]:
    """One decode pass gives five tables."""
    with reels.curation(context.partition_key) as run:
        step = curate.scan_step(run)
        for table in MEASURED:
            yield dg.MaterializeResult(table.name, metadata=metadata.of_step(step) | metadata.of_table(run, table))


@dg.multi_asset(
    name="decide",
    specs=[
        _spec(
            table,
            "decide",
            [dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in ("videos", "clips", "signals")],
        )
        for table in DECIDED
    ],
    partitions_def=POLICIES,
)
def decide(context: dg.AssetExecutionContext, reels: Reels) -> Iterator[dg.MaterializeResult]:
    """Measurements become decisions; no video is opened."""
    with reels.curation(policies=[context.partition_key]) as run:
        step = curate.decide_step(run, run.policies[0])
        yield dg.MaterializeResult(DECISIONS.name, metadata=metadata.of_step(step) | metadata.of_funnel(step))
        yield dg.MaterializeResult(
            SELECTION.name,
            metadata=metadata.of_step(step) | metadata.of_states(step) | metadata.contact_sheet(run, run.policies[0]),
        )


@dg.asset(
    deps=["selection"],
    partitions_def=POLICIES,
    group_name="publish",
    owners=OWNERS,
    kinds={"webdataset"},
    code_version="1",
    description="WebDataset tars by bucket, with index.parquet and manifest.json.",
)
def shards(context: dg.AssetExecutionContext, reels: Reels) -> dg.MaterializeResult:
    with reels.curation(policies=[context.partition_key]) as run:
        step = curate.shards_step(run, run.policies[0])
        return dg.MaterializeResult(metadata=metadata.of_step(step) | metadata.of_buckets(step))


@dg.asset(
    deps=[dg.AssetDep("shards", partition_mapping=dg.AllPartitionMapping())],
    group_name="publish",
    owners=OWNERS,
    kinds={"html"},
    code_version="1",
    description="One self-contained page: funnel, histograms with thresholds, contact sheets, failures.",
)
def report(context: dg.AssetExecutionContext, reels: Reels) -> dg.MaterializeResult:
    with reels.curation() as run:
        step = curate.report_step(run)
        return dg.MaterializeResult(metadata=metadata.of_step(step))


ASSETS = [inputs, probe, scan, decide, shards, report]
