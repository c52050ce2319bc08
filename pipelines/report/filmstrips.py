"""Video by video: shots and clips on a line of time.

What belongs here: which blocks a video's strip has and what they say. How a strip is drawn is `strips.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.accounts import STATE_CLASSES, STATE_WORDS
from pipelines.report.data import ReportData, ReportPolicy
from pipelines.report.figures import selection_of
from pipelines.report.markup import Markup, count, counted, element, join, number, seconds
from pipelines.report.sheets import names_of
from pipelines.report.strips import Block, timeline

MAX_VIDEOS = 40
MAX_BLOCKS = 400
"""Shots or clips on one strip: more are thinner than two pixels; then the strip tells only their number."""

Row = Mapping[str, object]

_LEGEND = element(
    "ul",
    *(
        element("li", element("i", class_=f"key {kind}"), label)
        for kind, label in (
            ("shot", "shot"),
            ("transition", "gradual transition"),
            ("kept", "selected clip"),
            ("rejected", "rejected clip"),
            ("failed", "failed"),
            ("other", "another state"),
        )
    ),
    class_="legend",
)


def filmstrips(data: ReportData) -> Markup:
    """A strip for each readable video, by name; policies that judged other clips get a strip of their own."""
    names = names_of(data)
    columns = ["video_id", "duration_s", "width_px", "height_px", "fps", "video_codec"]
    readable = data.videos.filter(pc.field("status") == "ok").select(columns).to_pylist()
    ranked = sorted(readable, key=lambda row: (names.get(row["video_id"], ""), row["video_id"]))
    shown = ranked[:MAX_VIDEOS]
    groups = [_group(group, [row["video_id"] for row in shown]) for group in data.scan_groups]
    rows = [_video(row, names.get(row["video_id"], row["video_id"]), groups) for row in shown]
    hidden = len(ranked) - len(shown)
    more = element("p", f"and {count(hidden)} more videos", class_="more") if hidden else ""
    lanes = "; ".join(", ".join(one.policy.name for one in group) for group in data.scan_groups)
    about = "Shots above, clips below" + (f", one lane for each policy: {lanes}." if len(data.policies) > 1 else ".")
    return join([element("p", about, class_="quiet"), _LEGEND, *rows, more])


@dataclass(frozen=True)
class _Group:
    """Shots and clips by video, and each policy's states, of the policies that judged the same clips."""

    shots: Mapping[str, list[Row]]
    clips: Mapping[str, list[Row]]
    states: Mapping[str, Mapping[str, tuple[str, str]]]

    def strip(self, video: Row, name: str) -> Markup:
        """The drawing for one video, or the reason why there is none."""
        shots, clips = self.shots[str(video["video_id"])], self.clips[str(video["video_id"])]
        told = f"{counted(len(shots), 'shot')}, {counted(len(clips), 'clip')}"
        if not shots:
            return element(
                "p", "No scan: a gate on the file's facts turned it away, or the scan failed.", class_="quiet"
            )
        if max(len(shots), len(clips)) > MAX_BLOCKS:
            return element("p", f"{told}: too many to draw", class_="quiet")
        lanes = [[_clip_block(clip, policy, states) for clip in clips] for policy, states in self.states.items()]
        duration_s = max(_float(video["duration_s"]), _float(shots[-1]["end_s"]))
        return timeline(duration_s, _shot_blocks(shots), lanes, f"{name}: {told}")


def _group(policies: Sequence[ReportPolicy], video_ids: list[str]) -> _Group:
    clips = _by_video(policies[0].clips, video_ids)
    clip_ids = [str(row["clip_id"]) for rows in clips.values() for row in rows]
    states = {one.policy.name: _states(one, clip_ids) for one in policies}
    return _Group(_by_video(policies[0].shots, video_ids), clips, states)


def _by_video(rows: pa.Table, video_ids: list[str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {video_id: [] for video_id in video_ids}
    wanted = rows.filter(pc.is_in(rows["video_id"], pa.array(video_ids, pa.string()))).to_pylist()
    for row in sorted(wanted, key=lambda row: row["start_s"] or 0.0):
        found[row["video_id"]].append(row)
    return found


def _states(policy: ReportPolicy, clip_ids: list[str]) -> dict[str, tuple[str, str]]:
    rows = selection_of(policy, "clip")
    rows = rows.filter(pc.is_in(rows["subject_id"], pa.array(clip_ids, pa.string())))
    return {row["subject_id"]: (row["state"], row["gate"] or "") for row in rows.to_pylist()}


def _video(video: Row, name: str, groups: Sequence[_Group]) -> Markup:
    size = f"{video['width_px']}×{video['height_px']}"
    video_id = str(video["video_id"])
    told = [_told((len(group.shots[video_id]) for group in groups), "shot")] if groups else []
    told += [_told((len(group.clips[video_id]) for group in groups), "clip")] if groups else []
    fps = f"{number(_float(video['fps']))} fps"
    facts = [*told, seconds(_float(video["duration_s"])), size, fps, video["video_codec"] or "?"]
    heading = element(
        "h5",
        element("span", name, class_="name", title=name),
        element("span", " · ".join(map(str, facts)), class_="when"),
    )
    find = f"{name} {video['video_id']}".lower()
    return element("div", heading, *(group.strip(video, name) for group in groups), class_="video", data_find=find)


def _told(amounts: Iterable[int], noun: str) -> str:
    """`1 shot`, or `3 / 5 shots` where scans differ."""
    different = list(dict.fromkeys(amounts))
    return counted(different[0], noun) if len(different) == 1 else f"{' / '.join(map(str, different))} {noun}s"


def _shot_blocks(shots: Sequence[Row]) -> list[Block]:
    """The shots, and what lies between two of them where the change is gradual."""
    blocks: list[Block] = []
    before_s = 0.0
    for shot in shots:
        start_s, end_s, transition = _float(shot["start_s"]), _float(shot["end_s"]), shot["transition"]
        if start_s > before_s and transition not in (None, "start", "cut"):
            blocks.append(Block(before_s, start_s, "transition", str(transition)))
        blocks.append(Block(start_s, end_s, "shot", f"shot {shot['index']}, begins with {transition}"))
        before_s = end_s
    return blocks


def _clip_block(clip: Row, policy: str, states: Mapping[str, tuple[str, str]]) -> Block:
    state, gate = states.get(str(clip["clip_id"]), ("", ""))
    said = STATE_WORDS.get(state, state or "no state") + (f" at {gate}" if gate else "")
    start_s = _float(clip["start_s"])
    hint = f"{policy}: {said} · {str(clip['clip_id'])[:12]}"
    return Block(start_s, start_s + _float(clip["duration_s"]), STATE_CLASSES.get(state, "other"), hint)


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
