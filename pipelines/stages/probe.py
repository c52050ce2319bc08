"""Container and stream facts of a video: table `videos`. Demuxes every packet and decodes one frame."""

from collections.abc import Mapping

import pyarrow as pa

from pipelines.stages import MediaCall, Stage
from pipelines.stages.outcome import ask
from pipelines.tables import FAILURES, VIDEOS, from_rows


def run(batch: pa.Table, params: Mapping[str, object], media: MediaCall) -> dict[str, pa.Table]:
    """One `videos` row per input row (video_id, uri, size_bytes, mtime_ns, inode): its facts, or the reason it has none."""
    rows: list[dict[str, object]] = []
    failures: list[dict[str, object]] = []
    for item in batch.to_pylist():
        outcome = ask(media, "probe", item, dict(params))
        row: dict[str, object] = {"video_id": item["video_id"], "size_bytes": item["size_bytes"]}
        if outcome.reply is not None:
            facts = outcome.reply.tables["videos"].to_pylist()[0]
            rows.append(facts | row | {"status": "ok"})
        else:
            rows.append(row | {"status": "failed"} | outcome.cause)
            failures.append({"stage": "probe", "key": item["video_id"]} | outcome.failure)
    return {"videos": from_rows(rows, VIDEOS), "failures": from_rows(failures, FAILURES)}


PROBE = Stage(name="probe", version=1, key="video_id", outputs=(VIDEOS, FAILURES), run=run)
