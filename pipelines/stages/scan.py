"""The one decode pass: tables `scans`, `shots`, `clips`, `signals` and `keyframes`."""

from collections.abc import Mapping

import pyarrow as pa

from pipelines.stages import MediaCall, Stage
from pipelines.stages.outcome import ask
from pipelines.tables import CLIPS, FAILURES, KEYFRAMES, SCANS, SHOTS, SIGNALS, conform, from_rows

_PER_CLIP = (SHOTS, CLIPS, SIGNALS, KEYFRAMES)


def run(batch: pa.Table, params: Mapping[str, object], media: MediaCall) -> dict[str, pa.Table]:
    """Scan each input row (video_id, uri, size_bytes, mtime_ns, inode); a video that fails still gives its `scans` row."""
    found: dict[str, list[pa.Table]] = {table.name: [] for table in (SCANS, *_PER_CLIP)}
    failures: list[dict[str, object]] = []
    for item in batch.to_pylist():
        outcome = ask(media, "scan", item, {"params": dict(params)})
        if outcome.reply is not None:
            for name, parts in found.items():
                parts.append(outcome.reply.tables[name])
        else:
            row = {"video_id": item["video_id"], "status": "failed"} | outcome.cause
            found[SCANS.name].append(from_rows([row], SCANS))
            failures.append({"stage": "scan", "key": item["video_id"]} | outcome.failure)
    tables = {
        table.name: pa.concat_tables(
            [table.schema.empty_table(), *(conform(part, table) for part in found[table.name])]
        )
        for table in (SCANS, *_PER_CLIP)
    }
    return tables | {"failures": from_rows(failures, FAILURES)}


SCAN = Stage(name="scan", version=1, key="video_id", outputs=(SCANS, *_PER_CLIP, FAILURES), run=run)
