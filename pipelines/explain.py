"""Everything known of one clip, video or file, as a page of text: what it is, how it was measured, what each policy said, where it went.

What belongs here: picking the rows of plain tables and setting them out. Loading the tables is the caller's; deciding is `policy`.
"""

import difflib
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from pipelines.policy.schema import bounds_of
from pipelines.tables import TABLES

NEAR_SHARE = 0.1
"""A score within this share of a bound is a near miss or a narrow pass; a bound of 0 has no such neighbourhood."""

MAX_LISTED = 5
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A titled table; every row has one text per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Explanation:
    """What is known of a subject: `kind` is clip, video or input."""

    kind: str
    subject_id: str
    sections: tuple[Section, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: each section a list of rows by column name."""
        sections = {
            section.title: [dict(zip(section.columns, row, strict=True)) for row in section.rows]
            for section in self.sections
        }
        return {"kind": self.kind, "id": self.subject_id, "sections": sections}

    def to_text(self) -> str:
        """Plain text, columns padded to one width."""
        lines = [f"{self.kind} {self.subject_id}"]
        for section in self.sections:
            lines += ["", section.title]
            table = [section.columns, *section.rows]
            widths = [max(len(row[index]) for row in table) for index in range(len(section.columns))]
            for row in table:
                cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                lines.append(("  " + "  ".join(cells)).rstrip())
        return "\n".join(lines) + "\n"

    def print(self, console: Console) -> None:
        """For a terminal; no text of a file is read as markup."""
        console.print(Text(f"{self.kind} {self.subject_id}", style="bold"))
        for section in self.sections:
            table = RichTable(title=section.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
            for column in section.columns:
                table.add_column(column, overflow="fold", header_style="dim")
            for row in section.rows:
                style = "red" if "reject" in row else "yellow" if any(cell.startswith("narrow") for cell in row) else ""
                table.add_row(*(Text(cell) for cell in row), style=style)
            console.print()
            console.print(table)


def explain(
    tables: Mapping[str, pa.Table],
    id_or_prefix: str,
    shards: Mapping[str, pa.Table] | None = None,
    lineage: Mapping[str, object] | None = None,
) -> Explanation:
    """All that `tables` hold of a clip or video, named by its id, the beginning of one, or the file's name.

    Args:
        tables: by name, as in `tables.py`; any may be absent. `decisions` and `selection` may hold several policies.
        id_or_prefix: see above.
        shards: by policy, the index of its shards.
        lineage: what the results hang on, by a name of the caller's: fingerprints, digests, versions.

    Raises:
        ValueError: nothing, or more than one thing, goes by that name; the message lists what is near.
    """
    kind, subject_id = _find(tables, id_or_prefix.strip())
    if kind == "input":
        return Explanation(
            kind, subject_id, (_facts("What it is", _rows(tables, "inputs", uri=subject_id)[0], "inputs"),)
        )
    build = _clip_sections if kind == "clip" else _video_sections
    sections = [*build(tables, subject_id), *_shard_sections(shards or {}, kind, subject_id)]
    if lineage:
        rows = tuple((name, _text(value)) for name, value in lineage.items())
        sections.append(Section("Lineage", ("what", "value"), rows))
    return Explanation(kind, subject_id, tuple(section for section in sections if section.rows))


def _clip_sections(tables: Mapping[str, pa.Table], clip_id: str) -> list[Section]:
    clip = next(iter(_rows(tables, "clips", clip_id=clip_id)), {"clip_id": clip_id})
    video_id = clip.get("video_id")
    pictures = _rows(tables, "keyframes", ["index"], clip_id=clip_id)
    keyframes = {"keyframes": len(pictures)} if "keyframes" in tables else {}
    measured = [
        (f"{name}.{column}", _text(value), _about(name, column))
        for name, table in TABLES.items()
        if table.key == ("clip_id",) and name != "clips"
        for row in _rows(tables, name, clip_id=clip_id)
        for column, value in row.items()
        if column != "clip_id"
    ]
    return [
        _sources(tables, video_id),
        _facts("What it is", clip | keyframes, "clips"),
        _states(tables, [clip_id, video_id]),
        _gates(tables, [video_id, clip_id]),
        Section("Measurements", ("column", "value", "meaning"), tuple(measured)),
        _failures(tables, [clip_id, video_id]),
    ]


def _video_sections(tables: Mapping[str, pa.Table], video_id: str) -> list[Section]:
    shots = [
        (
            _text(s["index"]),
            _seconds(s["start_s"], s["end_s"]),
            _text(s["transition"]),
            _text(s["clip_count"]),
            _text(s["unused_s"]),
        )
        for s in sorted(_rows(tables, "shots", video_id=video_id), key=lambda shot: shot["index"])
    ]
    states: dict[str, list[str]] = {}
    for row in _rows(tables, "selection", video_id=video_id):
        if row["subject_kind"] == "clip":
            at = f" at {row['gate']}" if row["gate"] else ""
            states.setdefault(row["subject_id"], []).append(f"{row['policy']}: {row['state']}{at}")
    clips = [
        (c["clip_id"], _seconds(c["start_s"], c["start_s"] + c["duration_s"]), "; ".join(states.get(c["clip_id"], [])))
        for c in sorted(_rows(tables, "clips", video_id=video_id), key=lambda clip: clip["start_pts"])
    ]
    return [
        _sources(tables, video_id),
        *(
            _facts(title, row, name)
            for title, name in (("Probe", "videos"), ("Scan", "scans"))
            for row in _rows(tables, name, video_id=video_id)
        ),
        _states(tables, [video_id]),
        _gates(tables, [video_id]),
        Section("Shots", ("index", "span", "begins with", "clips", "unused s"), tuple(shots)),
        Section("Clips", ("clip_id", "span", "state"), tuple(clips)),
        _failures(tables, [video_id]),
    ]


def _sources(tables: Mapping[str, pa.Table], video_id: str | None) -> Section:
    rows = _rows(tables, "inputs", video_id=video_id)
    return Section(
        "Source", ("uri", "state", "batch"), tuple((r["uri"], _text(r["state"]), _text(r["batch"])) for r in rows)
    )


def _facts(title: str, row: Row, table: str) -> Section:
    rows = tuple((name, _text(value), _about(table, name)) for name, value in row.items() if value is not None)
    return Section(title, ("column", "value", "meaning"), rows)


def _states(tables: Mapping[str, pa.Table], subjects: Iterable[str | None]) -> Section:
    columns = ("policy", "subject_kind", "state", "gate", "reason", "bucket", "weight")
    rows = [row for subject in subjects for row in _rows(tables, "selection", subject_id=subject)]
    return Section("States", columns, tuple(tuple(_text(row[name]) for name in columns) for row in rows))


def _gates(tables: Mapping[str, pa.Table], subjects: Iterable[str | None]) -> Section:
    """The ledger's rows in order of cost, with what was near."""
    rows = [row for subject in subjects for row in _rows(tables, "decisions", subject_id=subject)]
    cost = list(TABLES)
    rows.sort(key=lambda row: (row["policy"], row["gate"] == "orientation", cost.index(row["column"].split(".")[0])))
    said = [
        (
            row["policy"],
            row["gate"],
            row["column"],
            _text(row["score"]) if row["value"] is None else row["value"],
            row["threshold"],
            row["verdict"],
            row["cause"] if row["cause"] != "quality" else nearness(row["score"], row["threshold"], row["verdict"]),
        )
        for row in rows
    ]
    return Section("Gates", ("policy", "gate", "column", "score", "threshold", "verdict", "note"), tuple(said))


def nearness(score: float | None, threshold: str, verdict: str) -> str:
    """'near miss: ...' or 'narrow pass: ...' with the distance, if the score lies within `NEAR_SHARE` of a bound; else ''."""
    bounds = bounds_of(threshold)
    if score is None or bounds is None:
        return ""
    shares = [(abs(score - bound) / abs(bound), bound) for bound in bounds if bound]
    if not shares or min(shares)[0] > NEAR_SHARE:
        return ""
    share, bound = min(shares)
    side = "above" if score > bound else "below" if score < bound else "from"
    return f"{'narrow pass' if verdict == 'pass' else 'near miss'}: {share:.1%} {side} {bound:g}"


def _failures(tables: Mapping[str, pa.Table], keys: Iterable[str | None]) -> Section:
    rows = [row for key in keys for row in _rows(tables, "failures", key=key)]
    columns = ("stage", "reason", "message", "is_retryable")
    return Section("Failures", columns, tuple(tuple(_text(row[name]) for name in columns) for row in rows))


def _shard_sections(shards: Mapping[str, pa.Table], kind: str, subject_id: str) -> list[Section]:
    wanted = ("clip_id", "bucket", "shard", "sample_index", "mp4_offset", "mp4_size_bytes", "sha256")
    rows = []
    for policy, index in sorted(shards.items()):
        columns = [name for name in wanted if name in index.column_names]
        for row in index.filter(pc.equal(index[f"{kind}_id"], subject_id)).select(columns).to_pylist():
            rows.append((policy, *(_text(row.get(name)) for name in wanted)))
    return [Section("Shards", ("policy", *wanted), tuple(rows))]


def _find(tables: Mapping[str, pa.Table], name: str) -> tuple[str, str]:
    """(kind, id) of the one thing that goes by `name`."""
    ids = {"clip": _known(tables, "clips", "clip_id"), "video": _known(tables, "inputs", "video_id")}
    ids["video"] |= _known(tables, "videos", "video_id")
    matches = [(kind, key) for kind, keys in ids.items() for key in keys if name and key.startswith(name.lower())]
    exact = [match for match in matches if match[1] == name.lower()]
    matches = exact or matches or (_files(tables, name) if name else [])
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = ", ".join(f"{kind} {key}" for kind, key in sorted(matches)[:MAX_LISTED])
        more = f" and {len(matches) - MAX_LISTED} more" if len(matches) > MAX_LISTED else ""
        raise ValueError(f"{name!r} fits {len(matches)}: {listed}{more}; give more of the id")
    near = _nearest(name.lower(), sorted(ids["clip"] | ids["video"]))
    hint = f"the closest ids are {', '.join(near)}" if near else "no clip or video is known here yet"
    raise ValueError(f"no clip, video or file goes by {name!r}; {hint}")


def _known(tables: Mapping[str, pa.Table], table: str, column: str) -> set[str]:
    return {key for key in tables[table][column].to_pylist() if key} if table in tables else set()


def _files(tables: Mapping[str, pa.Table], name: str) -> list[tuple[str, str]]:
    """What the inputs of that file name or path hold; an input that could not be read stands for itself."""
    found = set()
    for row in tables["inputs"].select(["uri", "video_id"]).to_pylist() if "inputs" in tables else []:
        path = unquote(row["uri"])
        if name == row["uri"] or path.endswith("/" + name.lstrip("/")):
            found.add(("video", row["video_id"]) if row["video_id"] else ("input", row["uri"]))
    return sorted(found)


def _nearest(name: str, ids: list[str]) -> list[str]:
    """Ids that share the longest beginning with `name`, and, among not too many, those that differ by a slip of the hand."""
    place = bisect_left(ids, name)
    neighbours = ids[max(0, place - 1) : place + 1]
    slips = difflib.get_close_matches(name, ids, n=2, cutoff=0.8) if len(ids) <= 20_000 else []
    return list(dict.fromkeys([*slips, *neighbours]))[:3]


def _rows(
    tables: Mapping[str, pa.Table], name: str, columns: list[str] | None = None, **where: str | None
) -> list[dict[str, Any]]:
    """Rows of a table, if it is there, whose one named column holds the value."""
    (column, value), *_ = where.items()
    if name not in tables or value is None:
        return []
    found = tables[name].filter(pc.equal(tables[name][column], value))
    return (found.select(columns) if columns else found).to_pylist()


def _about(table: str, column: str) -> str:
    fields = {name: about for name, _, about in TABLES[table].columns}
    return fields.get(column, "")


def _seconds(start: float, end: float) -> str:
    return f"{start:.3f} to {end:.3f} s"


def _text(value: object) -> str:
    """Short text: floats to six digits, null as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
