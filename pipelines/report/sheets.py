"""Contact sheets: what a policy kept, and what each gate turned away.

What belongs here: which subjects a sheet shows and in what order (near misses first), and a sheet's markup.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy import Gate
from pipelines.report.data import ReportData, ReportPolicy
from pipelines.report.figures import closest_calls, decisions_of, gates_of, nearest, selection_of, steps
from pipelines.report.markup import Markup, clock, count, counted, element, number, rule, seconds, source_name
from pipelines.report.pictures import Picture, frame

MAX_ENTRIES = 24
"""Entries on a sheet; the rest are told as a number."""

Row = Mapping[str, object]


@dataclass(frozen=True)
class Entry:
    """One subject on a sheet and what the ledger says of it: the measurement `said` against `threshold`.

    `others` are the other gates that reject it; on the sheet of kept clips, `gate` is the one that came closest to it.
    """

    subject_id: str
    gate: str
    said: str
    threshold: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A sheet of clips or videos; `total` is how many belong on it, `entries` those that are shown. `gate` '' is the kept."""

    policy: str
    gate: str
    rule: str
    about: str
    subject_kind: str
    total: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Shelf:
    """Facts that the cards look up: rows by identifier, names by video_id, pictures by clip_id."""

    clips: Mapping[str, Row]
    signals: Mapping[str, Row]
    names: Mapping[str, str]
    pictures: Mapping[str, Sequence[Picture]]
    out: str


def plan(data: ReportData) -> list[Sheet]:
    """Every sheet of the page, in the page's order."""
    return [sheet for policy in data.policies for sheet in _plan(policy)]


def _plan(policy: ReportPolicy) -> list[Sheet]:
    """The kept, then each step of the funnel that rejects."""
    sheets = [_kept(policy)]
    for kind in ("video", "clip"):
        gates = {gate.name: gate for gate in gates_of(policy.policy, kind)}
        names = [step.name for step in steps(policy, kind)]
        sheets += [_turned_away(policy, name, gates.get(name), kind) for name in names]
    return [sheet for sheet in sheets if sheet.total or not sheet.gate]


def shown_clips(policy: ReportPolicy) -> list[str]:
    """The clip_ids whose keyframes the page can use, sorted."""
    sheets = [sheet for sheet in _plan(policy) if sheet.subject_kind == "clip"]
    return sorted({entry.subject_id for sheet in sheets for entry in sheet.entries})


def _kept(policy: ReportPolicy) -> Sheet:
    selection = selection_of(policy, "clip")
    kept = selection.filter(pc.field("state") == "selected")["subject_id"]
    entries = []
    for subject, gate in closest_calls(policy, kept, MAX_ENTRIES):
        rows = decisions_of(policy, gate).filter(pc.field("subject_id") == subject).to_pylist()
        entries += [_entry(row) for row in rows] or [Entry(subject, "", "", "")]
    return Sheet(policy.policy.name, "", "", "", "clip", len(kept), tuple(entries))


def _turned_away(policy: ReportPolicy, name: str, gate: Gate | None, subject_kind: str) -> Sheet:
    said = decisions_of(policy, name)
    rejects = said.filter((pc.field("verdict") == "reject") & (pc.field("subject_kind") == subject_kind))
    near = nearest(rejects, gate, MAX_ENTRIES)
    others = _rejecting_gates(policy, near["subject_id"])
    entries = [
        _entry(row, tuple(other for other in others[row["subject_id"]] if other != name)) for row in near.to_pylist()
    ]
    said_rule = f"{gate.column} {rule(gate.threshold)}" if gate else rule(entries[0].threshold) if entries else ""
    about = gate.about if gate else ""
    return Sheet(policy.policy.name, name, said_rule, about, subject_kind, rejects.num_rows, tuple(entries))


def _entry(row: Row, others: tuple[str, ...] = ()) -> Entry:
    score, value = row["score"], row["value"]
    said = number(score) if isinstance(score, float) else str(value) if value is not None else ""
    if row["cause"] == "error" or not said:
        said = "not measured"
    return Entry(str(row["subject_id"]), str(row["gate"]), said, rule(str(row["threshold"] or "")), others)


def _rejecting_gates(policy: ReportPolicy, subjects: pa.ChunkedArray) -> dict[str, list[str]]:
    rows = policy.rejects.filter(pc.is_in(policy.rejects["subject_id"], subjects.combine_chunks()))
    found: dict[str, list[str]] = {subject: [] for subject in subjects.to_pylist()}
    for row in sorted(rows.to_pylist(), key=lambda row: (row["subject_id"], row["gate"])):
        found[row["subject_id"]].append(row["gate"])
    return found


def shelf(data: ReportData, sheets: Sequence[Sheet], pictures: Mapping[str, Sequence[Picture]]) -> Shelf:
    """What the cards of this page will look up."""
    clips: dict[str, Row] = {}
    signals: dict[str, Row] = {}
    ids = pa.array(sorted({entry.subject_id for sheet in sheets for entry in sheet.entries}), pa.string())
    for policy in data.policies:
        for rows, found in ((policy.clips, clips), (policy.measurements["signals"], signals)):
            found.update({row["clip_id"]: row for row in rows.filter(pc.is_in(rows["clip_id"], ids)).to_pylist()})
    return Shelf(clips, signals, names_of(data), pictures, data.out)


def names_of(data: ReportData) -> dict[str, str]:
    """A file name for each video_id: that of the first path with these bytes, in order of URI."""
    rows = data.inputs.select(["uri", "video_id", "state"]).to_pylist()
    names: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (row["state"] != "video", row["uri"])):
        if row["video_id"]:
            names.setdefault(row["video_id"], source_name(row["uri"]))
    return names


def sheet_markup(sheet: Sheet, shelf: Shelf, is_open: bool) -> Markup:
    """The sheet under its heading, unfolded or not; what the cap hides is told."""
    tail = counted(sheet.total, sheet.subject_kind) + (" rejected" if sheet.gate else "")
    shown_rule = element("span", sheet.rule, class_="rule") if sheet.rule else None
    heading = element(
        "summary", element("h4", sheet.gate or "kept"), element("span", tail, class_="amount"), shown_rule
    )
    about = element("p", sheet.about, class_="quiet") if sheet.about else None
    if sheet.subject_kind == "video":
        body = element("ul", *(_video_row(entry, shelf) for entry in sheet.entries), class_="videos-rejected")
    else:
        body = element("div", *(_card(entry, not sheet.gate, shelf) for entry in sheet.entries), class_="cards")
    hidden = sheet.total - len(sheet.entries)
    where = f"further from {'the' if sheet.gate else 'any'} threshold"
    more = element("p", f"and {count(hidden)} more, {where}", class_="more") if hidden else None
    kind = "rejected" if sheet.gate else "kept"
    return element(
        "details", heading, about, body, more, class_=f"sheet {kind}", open=is_open, data_policy=sheet.policy
    )


def _verdict(entry: Entry, is_kept: bool) -> Markup:
    """The measurement against the bound; for a kept clip, of the gate that came closest to rejecting it."""
    if not entry.gate:
        return element("p", "no gate with a number spoke", class_="verdict quiet")
    lead = f"closest call: {entry.gate} " if is_kept else ""
    tail = element("span", f" against {entry.threshold}", class_="quiet")
    return element(
        "p", element("span", lead, class_="quiet") if lead else None, element("b", entry.said), tail, class_="verdict"
    )


def _card(entry: Entry, is_kept: bool, shelf: Shelf) -> Markup:
    clip = shelf.clips.get(entry.subject_id, {})
    name = shelf.names.get(str(clip.get("video_id")), str(clip.get("video_id") or "unknown source"))
    start_s, duration_s = _number(clip.get("start_s")), _number(clip.get("duration_s"))
    others = f"also rejected by {', '.join(entry.others)}" if entry.others else None
    return element(
        "article",
        _strip(shelf.pictures.get(entry.subject_id, ()), name, start_s),
        element(
            "h5",
            element("span", name, class_="name", title=name),
            element("span", f"{clock(start_s)} + {seconds(duration_s)}", class_="when"),
        ),
        _verdict(entry, is_kept),
        element("p", others, class_="quiet also") if others else None,
        _details(entry.subject_id, clip, shelf),
        class_="card",
        data_find=f"{name} {entry.subject_id}".lower(),
    )


def _strip(pictures: Sequence[Picture], name: str, start_s: float) -> Markup:
    if not pictures:
        return element("p", "without a picture on this page", class_="quiet no-picture")
    frames = [frame(one, f"{name} at {clock(start_s + one.time_s)}") for one in pictures]
    return element("div", *frames, class_=f"strip of-{len(frames)}")


def _details(clip_id: str, clip: Row, shelf: Shelf) -> Markup:
    """The identifier with the command that explains it, and every signal, folded away."""
    signals = shelf.signals.get(clip_id, {})
    facts = [(name, _shown(value)) for name, value in signals.items() if name != "clip_id" and value is not None]
    box = f"{clip.get('crop_width_px')}×{clip.get('crop_height_px')} at {clip.get('crop_left_px')},{clip.get('crop_top_px')}"
    facts = [("shot", str(clip.get("shot_index"))), ("crop", box), ("frames", str(clip.get("frame_count"))), *facts]
    listed = element("dl", *(item for key, value in facts for item in (element("dt", key), element("dd", value))))
    command = element("code", f"reelmill explain {shelf.out} {clip_id}", class_="copy")
    return element(
        "details", element("summary", element("code", clip_id[:12]), " measurements"), command, listed if clip else None
    )


def _video_row(entry: Entry, shelf: Shelf) -> Markup:
    name = shelf.names.get(entry.subject_id, entry.subject_id)
    hint = element("code", f"reelmill explain {shelf.out} {entry.subject_id}", class_="copy")
    return element(
        "li",
        element("span", name, class_="name", title=name),
        _verdict(entry, False),
        hint,
        data_find=f"{name} {entry.subject_id}".lower(),
    )


def _shown(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
