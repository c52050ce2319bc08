"""The promise that every input, video and clip ends in exactly one recorded state, as a check.

What belongs here: the check and nothing else; it takes no word of `decide.py` on trust.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy.outcome import counts
from pipelines.policy.schema import Policy

INPUT_STATES = ("video", "copy", "failed")
VIDEO_STATES = ("yielded_clips", "without_clips", "rejected", "failed")
CLIP_STATES = ("selected", "rejected", "duplicate", "resampled_away", "failed")


def check_states(
    inputs: pa.Table, videos: pa.Table, scans: pa.Table, clips: pa.Table, selection: pa.Table, policy: Policy
) -> list[str]:
    """Violations of 'everything ends in exactly one recorded state'; empty if all counts add up."""
    mine = selection.filter(pc.equal(selection["policy"], policy.name))
    rows = {kind: mine.filter(pc.equal(mine["subject_kind"], kind)) for kind in ("video", "clip")}
    found = _check_inputs(inputs, videos)
    found += _check_subjects("video", videos["video_id"], rows["video"], VIDEO_STATES)
    found += _check_subjects("clip", clips["clip_id"], rows["clip"], CLIP_STATES)
    if mine.num_rows != rows["video"].num_rows + rows["clip"].num_rows:
        found.append("selection: rows that are neither of a video nor of a clip")
    found += _check_details(mine)
    found += _check_clips_of_videos(scans, clips, rows)
    return found


def _check_inputs(inputs: pa.Table, videos: pa.Table) -> list[str]:
    found = _repeats("inputs", "uri", inputs["uri"])
    by_state = counts(inputs, ["state"])
    strange = [state for (state,) in by_state if state not in INPUT_STATES]
    if strange:
        found.append(f"inputs: states {strange}, known are {INPUT_STATES}")
    found += _repeats("videos", "video_id", videos["video_id"])
    firsts = inputs.filter(pc.equal(inputs["state"], "video"))["video_id"]
    found += _repeats("inputs in state video", "video_id", firsts)
    known = set(videos["video_id"].to_pylist())
    found += _differs("inputs in state video", set(firsts.to_pylist()), "videos", known)
    copies = set(inputs.filter(pc.equal(inputs["state"], "copy"))["video_id"].to_pylist())
    found += [f"inputs: {len(copies - known)} copies of no known video"] if copies - known else []
    is_mute = pc.and_(pc.equal(inputs["state"], "failed"), pc.is_null(inputs["reason"]))
    mute = inputs.filter(is_mute).num_rows
    return found + ([f"inputs: {mute} failed without a reason"] if mute else [])


def _check_subjects(kind: str, ids: pa.ChunkedArray, rows: pa.Table, states: tuple[str, ...]) -> list[str]:
    """Each id has one row, no row is of something else, and the states' counts sum to the ids."""
    found = _repeats(f"selection of {kind}s", "subject_id", rows["subject_id"])
    found += _differs(f"{kind}s", set(ids.to_pylist()), "selection", set(rows["subject_id"].to_pylist()))
    by_state = {state: count for (state,), count in counts(rows, ["state"]).items()}
    strange = sorted(str(state) for state in by_state if state not in states)
    if strange:
        found.append(f"selection of {kind}s: states {strange}, known are {list(states)}")
    total = sum(by_state.get(state, 0) for state in states)
    if total != len(ids):
        found.append(f"{kind}s: {len(ids)} came in, their states sum to {total}")
    return found


def _check_details(rows: pa.Table) -> list[str]:
    """Rejected names a gate, failed a reason, selected a bucket and a weight; nothing else has a bucket."""
    found = []
    for states, column in (
        (("rejected", "resampled_away", "failed"), "gate"),
        (("failed", "duplicate"), "reason"),
        (("selected",), "bucket"),
        (("selected",), "weight"),
    ):
        is_due = pc.is_in(rows["state"], value_set=pa.array(states))
        lacking = rows.filter(pc.and_(is_due, pc.is_null(rows[column]))).num_rows
        if lacking:
            found.append(f"selection: {lacking} rows in {'/'.join(states)} lack their {column}")
    is_placed = pc.and_(pc.is_valid(rows["bucket"]), pc.not_equal(rows["state"], "selected"))
    placed = rows.filter(is_placed).num_rows
    return found + ([f"selection: {placed} rows have a bucket but are not selected"] if placed else [])


def _check_clips_of_videos(scans: pa.Table, clips: pa.Table, rows: dict[str, pa.Table]) -> list[str]:
    """Clips made = clips recorded = clips with a state; a video's state says whether it has any."""
    per_video = {video: count for (video,), count in counts(clips, ["video_id"]).items()}
    good = scans.filter(pc.equal(scans["status"], "ok"))
    found = [
        f"scans: video {video} says {said} clips, the table has {per_video.get(video, 0)}"
        for video, said in zip(good["video_id"].to_pylist(), good["clip_count"].to_pylist(), strict=True)
        if said != per_video.get(video, 0)
    ]
    states = dict(zip(rows["video"]["subject_id"].to_pylist(), rows["video"]["state"].to_pylist(), strict=True))
    for video, state in states.items():
        if state in ("yielded_clips", "without_clips") and (state == "yielded_clips") != (video in per_video):
            found.append(f"selection: video {video} is {state} with {per_video.get(video, 0)} clips")
    selected = rows["clip"].filter(pc.equal(rows["clip"]["state"], "selected"))
    orphans = {video for video in selected["video_id"].to_pylist() if states.get(video) != "yielded_clips"}
    return found + [
        f"selection: clips of video {video} are selected, it is {states.get(video)}" for video in sorted(orphans)
    ]


def _repeats(what: str, column: str, values: pa.ChunkedArray) -> list[str]:
    repeats = len(values) - len(pc.unique(values))
    return [f"{what}: {repeats} rows repeat a {column}"] if repeats else []


def _differs(one: str, left: Iterable[object], other: str, right: Iterable[object]) -> list[str]:
    found = []
    for name, more, less, fewer in ((one, set(left), other, set(right)), (other, set(right), one, set(left))):
        extra = sorted(map(str, more - fewer))
        if extra:
            found.append(f"{name}: {len(extra)} that {less} does not have, such as {extra[0]}")
    return found
