"""What is run by a person's click, by a sensor or by the clock.

What belongs here: selections of assets and what starts them. A folder in the inbox is a batch; it is taken when its files have been still
for a minute, so that a copy in progress is not curated half-way.
"""

import hashlib
import time
from pathlib import Path

import dagster as dg

from orchestration.partitions import BATCHES
from orchestration.resources import Reels

STILL_S = 60.0

measure_batch = dg.define_asset_job(
    "measure_batch",
    selection=dg.AssetSelection.groups("ingest", "measure"),
    description="Hash, probe and scan one batch of the inbox; what was measured before is reused.",
)
publish_policy = dg.define_asset_job(
    "publish_policy",
    selection=dg.AssetSelection.groups("decide") | dg.AssetSelection.assets("shards"),
    description="Decide by one policy over all batches, and write its shards.",
)
write_report = dg.define_asset_job(
    "write_report", selection=dg.AssetSelection.assets("report"), description="The HTML report."
)


def batch_digest(folder: Path) -> tuple[str, float]:
    """(digest of names, sizes and times of a folder's files; seconds since the latest change)."""
    facts = sorted((str(path.relative_to(folder)), path.lstat()) for path in folder.rglob("*") if not path.is_dir())
    text = "\n".join(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}" for name, stat in facts)
    latest = max((stat.st_mtime for _, stat in facts), default=time.time())
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16], time.time() - latest


@dg.sensor(
    job=measure_batch,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="A new or changed folder in the inbox becomes a batch and is measured.",
)
def inbox(context: dg.SensorEvaluationContext, reels: Reels) -> dg.SensorResult:
    folders = [path for path in sorted(Path(reels.inbox).glob("*")) if path.is_dir() and not path.name.startswith(".")]
    new, requests = [], []
    for folder in folders:
        digest, still_s = batch_digest(folder)
        if still_s < STILL_S:
            continue
        if not context.instance.has_dynamic_partition(BATCHES.name or "", folder.name):
            new.append(folder.name)
        requests.append(dg.RunRequest(run_key=f"{folder.name}-{digest}", partition_key=folder.name))
    return dg.SensorResult(
        run_requests=requests, dynamic_partitions_requests=[BATCHES.build_add_request(new)] if new else []
    )


nightly_report = dg.ScheduleDefinition(name="nightly_report", target=write_report, cron_schedule="30 4 * * *")


@dg.schedule(
    job=publish_policy, cron_schedule="0 3 * * *", description="Every policy is decided and published anew each night."
)
def nightly_publish(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
    from pipelines.policy import shipped_policies

    return [
        dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%d}-{name}", partition_key=name)
        for name in shipped_policies()
    ]


JOBS = [measure_batch, publish_policy, write_report]
SENSORS = [inbox]
SCHEDULES = [nightly_publish, nightly_report]
