"""What a materialisation shows in the Dagster UI: numbers, a funnel, histograms, a contact sheet.

What belongs here: turning results into metadata values, and the one spelling of every metadata key. Dagster refuses numpy scalars and dates
*after* the work is done, so everything passes through plain Python types here. Markdown under 1,000 characters is shown in place; longer
(the contact sheet) opens with a click.
"""

import base64
import math
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import catalog
from pipelines.curate import Curation, StepResult
from pipelines.policy import Policy
from pipelines.tables import CLIPS, KEYFRAMES, SCANS, SHOTS, SIGNALS, Table

BARS = "▁▂▃▄▅▆▇█"
SHOWN_CHARS = 900
SHEET_CLIPS = 8
SHEET_BYTES = 400_000  # stored in the event log's row: a few of these a run are fine in SQLite, megabytes are not
_KINDS = {"string": "string", "int64": "int", "double": "float", "bool": "bool", "binary": "binary"}

Metadata = dict[str, Any]


def column_schema(table: Table) -> dg.TableSchema:
    """A table's columns with their meaning, for the UI's schema view."""
    return dg.TableSchema(
        [dg.TableColumn(name, _KINDS.get(str(kind), str(kind)), about) for name, kind, about in table.columns]
    )


def of_step(step: StepResult) -> Metadata:
    """The numbers that every step has: the UI plots them over time and partitions."""
    numbers: Metadata = {
        "done": step.done,
        "reused": step.reused,
        "failed": step.failed,
        "wall_s": round(step.seconds, 2),
    }
    if step.facts.get("reasons"):
        numbers["failure_reasons"] = dg.MetadataValue.md(_counts(step.facts["reasons"], "reason"))
    return numbers


def of_states(step: StepResult) -> Metadata:
    """How many ended in each state."""
    return {"states": dg.MetadataValue.md(_counts(step.facts["states"], "state"))}


def of_funnel(step: StepResult) -> Metadata:
    """The funnel as a table: gate, in, rejected, errors, out."""
    lines = ["| | gate | in | rejected | errors | out |", "|---|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row['subject_kind']} | {row['gate']} | {row['in']} | {row['rejected']} | {row['errors']} | {row['out']} |"
        for row in step.facts["funnel"]
        if row["rejected"] or row["errors"] or row["column"] is None
    ]
    return {"funnel": dg.MetadataValue.md("\n".join(lines))}


def of_table(run: Curation, table: Table) -> Metadata:
    """Row count of a scan's table, and a histogram of each measurement."""
    rows = pa.concat_tables(
        [catalog.scan_table(run.store, work, table, run.batch) for work, _ in catalog.scan_works(run.policies)]
    )
    shown: Metadata = {"dagster/row_count": rows.num_rows}
    columns = {SIGNALS: SIGNALS.schema.names[1:], CLIPS: ["duration_s"], SHOTS: ["end_s"], SCANS: ["frame_count"]}.get(
        table, []
    )
    lines = [f"| {name} | {line} |" for name in columns if (line := histogram(rows.column(name)))]
    for number, group in enumerate(_shown_in_place(lines)):
        name = "histogram" if number == 0 else f"histogram_{number + 1}"
        shown[name] = dg.MetadataValue.md("\n".join(["| | |", "|---|---|", *group]))
    return shown


def _shown_in_place(lines: list[str]) -> list[list[str]]:
    """Lines in groups that are each short enough to be shown without a click."""
    groups: list[list[str]] = []
    for line in lines:
        if not groups or sum(map(len, groups[-1])) + len(line) > SHOWN_CHARS:
            groups.append([])
        groups[-1].append(line)
    return groups


def histogram(column: pa.ChunkedArray, bins: int = 16) -> str:
    """A column's distribution in one line of text, from its 1st to its 99th percentile: `0.1 ▁▂▅█▇▃▁ 9.8`."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return ""
    values = sorted(value for value in column.to_pylist() if value is not None and not math.isnan(value))
    if not values:
        return ""
    low, high = values[len(values) // 100], values[-1 - len(values) // 100]
    if low == high:
        return f"{low:.3g} (all)"
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int((value - low) / (high - low) * bins)))] += 1
    most = max(counts)
    return f"{low:.3g} {''.join(BARS[round(count / most * (len(BARS) - 1))] for count in counts)} {high:.3g}"


def contact_sheet(run: Curation, policy: Policy) -> Metadata:
    """One keyframe of each of the first selected clips, inlined; fewer if they are large."""
    selection = catalog.selection(run.store, policy)
    selected = (
        selection.filter(pc.equal(selection.column("state"), "selected")).column("subject_id").to_pylist()[:SHEET_CLIPS]
    )
    frames = catalog.keyframes(run.store, policy, selected)
    middle: dict[str, bytes] = {}
    for row in frames.select([*KEYFRAMES.key, "jpeg"]).to_pylist():
        if row["index"] <= 1:  # the second of at least three: neither the first nor the last frame
            middle[row["clip_id"]] = row["jpeg"]
    pictures, size = [], 0
    for clip_id in selected:
        data = base64.b64encode(middle.get(clip_id, b"")).decode()
        size += len(data)
        if data and size <= SHEET_BYTES:
            pictures.append(f"![{clip_id}](data:image/jpeg;base64,{data})")
    return {"contact_sheet": dg.MetadataValue.md("\n".join(pictures))} if pictures else {}


def of_buckets(step: StepResult) -> Metadata:
    """Samples of each bucket, and where the shards are."""
    facts = step.facts
    return {
        "samples": facts["samples"],
        "size_bytes": facts["size_bytes"],
        "media_s": round(facts["media_s"], 2),
        "buckets": dg.MetadataValue.md(_counts(facts["buckets"], "bucket")),
        "folder": dg.MetadataValue.path(facts["folder"]),
    }


def _counts(values: Mapping[str, int], name: str) -> str:
    lines = [f"| {key} | {value} |" for key, value in values.items()]
    return "\n".join([f"| {name} | |", "|---|---:|", *(lines or ["| none | 0 |"])])
