"""The report: one page that needs nothing else, says what the tables say, and cannot be turned by a hostile name."""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.policy import Decisions, Gate, decide, load_policy
from pipelines.report import ReportData, ReportPolicy, StageRun, build_report, shown_clips
from pipelines.report.charts import axis_of, histogram_chart
from pipelines.report.figures import decisions_of, histogram, nearest, steps
from pipelines.report.pictures import BUDGET_BYTES, choose, jpeg_size
from pipelines.report.sheets import MAX_ENTRIES, plan
from pipelines.tables import CLIPS, DECISIONS, FAILURES, INPUTS, KEYFRAMES, SCANS, SHOTS, SIGNALS, VIDEOS, from_rows
from pipelines.video import probe, scan

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\n\u202egpj.mp4'
VOID = {"meta", "input", "br", "hr"}


class Page(HTMLParser):
    """What a browser would see: elements with attributes, text, and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.raw: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.raw[self.open[-1]] = data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def having(self, css_class: str) -> list[dict[str, str]]:
        return [attributes for _, attributes in self.elements if css_class in attributes.get("class", "").split()]


def jpeg(seed: int = 0, side_px: int = 32, quality: int = 80) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (side_px, 2 * side_px, 3), np.uint8)
    return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def measured(clip_count: int = 60, seed: int = 0) -> dict[str, pa.Table]:
    """Tables of a run: ten videos, of which one cannot be read and one has no clip; plausible signals, a few of them absent."""
    draw = np.random.default_rng(seed)
    videos = [
        {
            "video_id": f"{i:032x}",
            "status": "ok",
            "duration_s": 300.0,
            "fps": 25.0,
            "video_codec": "h264",
            "width_px": 1280,
            "height_px": 720,
            "is_interlaced": False,
        }
        for i in range(9)
    ]
    videos.append({"video_id": "f" * 32, "status": "failed", "reason": "truncated", "message": "cut <off>"})
    scans = [{"video_id": f"{i:032x}", "status": "ok", "corrupt_frame_count": 0, "clip_count": 1} for i in range(9)]
    shots, clips, signals = [], [], []
    for i in range(clip_count):
        video_id, at = f"{i % 8:032x}", i // 8
        start_s, clip_id = 10.0 * at, f"c{i:031x}"
        shots.append(
            {
                "video_id": video_id,
                "index": at,
                "start_s": start_s,
                "end_s": start_s + 9,
                "transition": "dissolve" if at else "start",
                "clip_count": 1,
            }
        )
        clips.append(
            {
                "clip_id": clip_id,
                "video_id": video_id,
                "shot_index": at,
                "start_s": start_s,
                "duration_s": 6.0,
                "start_pts": i,
                "end_pts": i + 6,
                "time_base_num": 1,
                "time_base_den": 1,
                "frame_count": 150,
                "crop_left_px": 0,
                "crop_top_px": 0,
                "crop_width_px": 1280,
                "crop_height_px": 720,
            }
        )
        signals.append(
            {
                "clip_id": clip_id,
                "border_kind": "letterbox" if i % 3 else "none",
                "border_share": 0.0,
                "black_share": 0.0,
                "flat_share": float(draw.beta(1, 4)),
                "flash_count": 0,
                "sharpness": 100.0,
                "static_share": 0.0,
                "duplicate_share": 0.0,
                "slideshow_score": 0.0,
                "shots_per_s": 0.0,
                "motion_score": None if i % 20 == 7 else float(draw.lognormal(0, 1.2)),
                "flow_px": float(draw.lognormal(0, 1)),
                "jitter": 0.01,
            }
        )
    rows = {VIDEOS: videos, SCANS: scans, SHOTS: shots, CLIPS: clips, SIGNALS: signals, FAILURES: []}
    return {table.name: from_rows(found, table) for table, found in rows.items()}


def keyframes(tables: dict[str, pa.Table], bytes_of: bytes | None = None) -> pa.Table:
    ids = tables["clips"]["clip_id"].to_pylist()
    rows = [
        {"clip_id": one, "index": k, "time_s": 1.5 * k, "jpeg": bytes_of or jpeg(4 * i + k)}
        for i, one in enumerate(ids)
        for k in range(4)
    ]
    return from_rows(rows, KEYFRAMES)


def inputs(tables: dict[str, pa.Table], name: str = "take") -> pa.Table:
    rows = [
        {"uri": (Path("/in") / f"{i}{name}").as_uri(), "video_id": video_id, "state": "video"}
        for i, video_id in enumerate(tables["videos"]["video_id"].to_pylist())
    ]
    rows.append({"uri": "file:///in/again.mp4", "video_id": "0" * 32, "state": "copy"})
    rows.append(
        {"uri": "file:///in/nothing%FF.mp4", "state": "failed", "reason": "empty", "message": "no bytes & no hope"}
    )
    return from_rows(rows, INPUTS)


def run_of(tables: dict[str, pa.Table], *policies: str, pictures: pa.Table | None = None) -> ReportData:
    pictures = keyframes(tables) if pictures is None else pictures
    # the motion bound is the test's own: that of the shipped policies follows their videos
    loaded = [load_policy(name, ["gates.motion.min=0.5"]) for name in policies or ("demo",)]
    judged = tuple(ReportPolicy(one, decide(one, tables), tables, pictures) for one in loaded)
    stage = StageRun("scan", "0123456789abcdef", 9, 3, 1, 12.5, {"min_clip_s": 2.0})
    return ReportData(inputs(tables), tables["videos"], tables["failures"], judged, (stage,), "out", "2026-01-31")


@pytest.fixture(scope="module")
def data() -> ReportData:
    return run_of(measured())


@pytest.fixture(scope="module")
def page(data: ReportData) -> Page:
    return Page(build_report(data))


def test_the_page_refers_to_nothing_outside_itself(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "action", "style", "xlink:href"} & set(attributes)
        assert re.match(r"#|data:image/jpeg;base64,", attributes.get("href", "#"))
    assert not re.search(r"https?:|@import|url\(", page.raw["style"] + page.raw["script"] + page.text)


def test_every_inner_reference_has_its_target(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    hrefs = {attributes["href"] for _, attributes in page.elements if attributes.get("href", "").startswith("#")}
    assert hrefs and hrefs <= {f"#{one}" for one in ids}


def test_the_security_policy_allows_only_the_pages_own_style_and_script(page: Page) -> None:
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_hostile_names_and_messages_are_only_text() -> None:
    tables = measured(20)
    told = {"stage": "scan", "key": "0" * 32, "reason": HOSTILE, "message": HOSTILE, "is_retryable": False}
    tables["failures"] = from_rows([told], FAILURES)
    plain = run_of(tables)
    stages = (StageRun(HOSTILE, HOSTILE, 1, 0, 0, 1.0, {HOSTILE: HOSTILE}),)
    hostile = replace(
        plain, inputs=inputs(tables, HOSTILE), stages=stages, out=HOSTILE, date=HOSTILE, facts={HOSTILE: HOSTILE}
    )
    one = hostile.policies[0]
    policy = replace(one.policy, about=HOSTILE, gates=tuple(replace(gate, about=HOSTILE) for gate in one.policy.gates))
    text = build_report(replace(hostile, policies=(replace(one, policy=policy),)))
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not {"img", "x"} & {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "\u202e" not in text
    assert page.text.count(r"<script>alert(1)</script>") > 10
    assert r"onerror=alert(2)>\n\u202egpj.mp4" in page.text


def test_states_and_funnel_say_what_the_tables_say(data: ReportData, page: Page) -> None:
    selection = data.policies[0].outcome.selection.to_pylist()
    for kind in ("video", "clip"):
        states = [row["state"] for row in selection if row["subject_kind"] == kind]
        found = steps(data.policies[0], kind)
        assert found[0].entered == len(states)
        assert all(after.entered == before.left for before, after in pairwise(found))
        assert found[-1].left == states.count("selected") + states.count("yielded_clips")
        for state in set(states):
            assert f"{state.replace('_', ' ')} {states.count(state)}" in page.text
        for step in found:
            assert f"{step.left} of {step.entered} go on, {step.entered - step.left} stop here" in page.text
    assert "a video 10 a copy of one 1 failed 1" in page.text
    assert "= 12 ✓" in page.text
    assert not page.having("does-not-add-up")


def test_counts_that_do_not_add_up_are_told(data: ReportData) -> None:
    one = data.policies[0]
    lost = Decisions(one.outcome.decisions, one.outcome.selection.slice(1))
    page = Page(build_report(replace(data, policies=(replace(one, outcome=lost),))))
    assert len(page.having("does-not-add-up")) == 1
    assert "9 accounted for, but there are 10" in page.text


def test_failures_stand_with_reason_and_message(page: Page) -> None:
    assert r"nothing\xff.mp4 ingest empty no bytes & no hope" in page.text
    assert "9take probe truncated cut <off>" in page.text


def charts(data: ReportData) -> Iterator[tuple[Gate, pa.Table, Page]]:
    for gate in data.policies[0].policy.active_gates:
        said = decisions_of(data.policies[0], gate.name)
        if (figure := histogram(said, gate)) is not None:
            yield gate, said, Page(histogram_chart(figure, gate))


def test_thresholds_are_drawn_between_what_passes_and_what_is_rejected(data: ReportData) -> None:
    seen = 0
    for gate, _, chart in charts(data):
        lines = {float(line["data-bound"]): line for line in chart.having("threshold")}
        assert set(lines) == {bound for bound in (gate.minimum, gate.maximum) if bound is not None}
        low = float(lines[gate.minimum]["x1"]) if gate.minimum is not None else -np.inf
        high = float(lines[gate.maximum]["x1"]) if gate.maximum is not None else np.inf
        shades = [(float(r["x"]), float(r["x"]) + float(r["width"])) for r in chart.having("refused")]
        assert all(end == pytest.approx(low) or start == pytest.approx(high) for start, end in shades)
        for bar in chart.having("kept"):
            assert float(bar["x"]) >= low - 0.01 and float(bar["x"]) + float(bar["width"]) <= high + 0.01
        for bar in chart.having("rejected"):
            seen += 1
            assert float(bar["x"]) + float(bar["width"]) <= low + 0.01 or float(bar["x"]) >= high - 0.01
    assert seen > 5


def test_a_threshold_line_stands_at_its_value_on_the_axis(data: ReportData) -> None:
    gate = next(one for one in data.policies[0].policy.clip_gates if one.name == "motion")
    figure = histogram(decisions_of(data.policies[0], "motion"), gate)
    assert figure is not None and figure.is_log
    axis, line = axis_of(figure), Page(histogram_chart(figure, gate)).having("threshold")[0]
    part = np.log(gate.minimum / figure.edges[0]) / np.log(figure.edges[-1] / figure.edges[0])
    assert float(line["x1"]) == pytest.approx(axis.left_px + part * (axis.right_px - axis.left_px), abs=0.01)
    assert float(line["x2"]) == float(line["x1"])


def test_what_could_not_be_measured_is_counted_apart_and_in_no_bar(data: ReportData, page: Page) -> None:
    gate = next(one for one in data.policies[0].policy.clip_gates if one.name == "motion")
    figure = histogram(decisions_of(data.policies[0], "motion"), gate)
    assert figure is not None and (figure.failed, figure.judged) == (3, 57)
    assert "3 not measured, rejected" in page.text


@settings(deadline=None)
@given(
    scores=st.lists(st.none() | st.floats(0, 1e6) | st.integers(0, 3).map(float), min_size=1, max_size=80),
    minimum=st.none() | st.floats(1e-3, 1e5),
    width=st.floats(1e-3, 1e6),
)
def test_every_score_is_in_exactly_one_bin_on_the_right_side(
    scores: list[float | None], minimum: float | None, width: float
) -> None:
    maximum = (minimum or 0) + width
    gate = Gate("g", "signals.motion_score", "reject", minimum, maximum)
    passes = [s is not None and (minimum is None or s >= minimum) and s <= maximum for s in scores]
    rows = [
        {"policy": "p", "subject_id": str(i), "gate": "g", "score": score, "verdict": "pass" if ok else "reject"}
        for i, (score, ok) in enumerate(zip(scores, passes, strict=True))
    ]
    figure = histogram(from_rows(rows, DECISIONS), gate)
    known = [score for score in scores if score is not None]
    if figure is None:
        assert not known
        return
    assert figure.judged + figure.failed == len(scores)
    assert sum(figure.passed) + figure.zeros[0] == sum(passes)
    assert list(figure.edges) == sorted(set(figure.edges))
    assert figure.median == np.median(known)
    assert "nan" not in histogram_chart(figure, gate)


def test_sheets_are_capped_near_misses_first_and_tell_what_they_hide() -> None:
    data = run_of(measured(400))
    sheet = next(one for one in plan(data) if one.gate == "motion")
    assert sheet.total > MAX_ENTRIES == len(sheet.entries)
    said = decisions_of(data.policies[0], "motion").to_pylist()
    scores = sorted(
        (row["score"] for row in said if row["verdict"] == "reject" and row["score"] is not None), reverse=True
    )
    assert [float(entry.said) for entry in sheet.entries] == pytest.approx(scores[:MAX_ENTRIES], rel=0.01)
    page = Page(build_report(data))
    assert f"and {sheet.total - MAX_ENTRIES} more, further from the threshold" in page.text
    assert "against ≥ 0.5" in page.text


def test_kept_clips_and_each_gates_rejects_have_a_sheet(data: ReportData, page: Page) -> None:
    policy = data.policies[0]
    sheets = {sheet.gate: sheet for sheet in plan(data)}
    selection = policy.outcome.selection.to_pylist()
    assert sheets[""].total == sum(row["state"] == "selected" for row in selection)
    rejects = policy.outcome.decisions.filter(pa.compute.field("verdict") == "reject")["gate"].to_pylist()
    assert {name: sheet.total for name, sheet in sheets.items() if name} == {
        name: rejects.count(name) for name in rejects
    }
    assert len(page.having("sheet")) == len(sheets)
    for clip_id in shown_clips(policy):
        assert f"reelmill explain out {clip_id}" in page.text


def test_a_clip_on_several_sheets_is_embedded_once(data: ReportData, page: Page) -> None:
    images = [attributes for tag, attributes in page.elements if tag == "image"]
    assert len({one["href"] for one in images}) == len(images) == 3 * len(shown_clips(data.policies[0]))
    uses = [attributes["href"] for tag, attributes in page.elements if tag == "use"]
    assert len(uses) > len(images)
    frames = page.having("frame")
    assert len(frames) == len(uses) and all(one["aria-label"] for one in frames)


def test_only_what_is_a_jpeg_is_embedded() -> None:
    good = jpeg()
    assert jpeg_size(good) == (64, 32)
    for bad in (b"", b"<svg onload=alert(1)>", b"\xff\xd8\xff", good[:100], b"GIF89a" + good, good + bytes(2**20)):
        assert jpeg_size(bad) is None
    tables = measured(4)
    page = Page(build_report(run_of(tables, pictures=keyframes(tables, b"<svg onload=alert(1)>"))))
    assert not [tag for tag, _ in page.elements if tag == "image"]
    assert "without a picture on this page" in page.text


def test_pictures_stay_in_their_budget_and_the_nearest_come_first() -> None:
    ids = [f"{i:02d}" for i in range(24)]
    rows = [{"clip_id": one, "index": k, "time_s": float(k), "jpeg": jpeg(k)} for one in ids for k in range(5)]
    one_bytes = max(len(row["jpeg"]) for row in rows)
    found = choose([ids], [from_rows(rows, KEYFRAMES)], budget_bytes=30 * one_bytes)
    assert sum(len(picture.jpeg) for pictures in found.values() for picture in pictures) <= 30 * one_bytes
    assert [picture.time_s for picture in found["00"]] == [0.0, 2.0, 4.0]
    assert [picture.time_s for picture in found["20"]] == [2.0]
    assert set(found) == set(ids)


def test_a_page_with_more_pictures_than_fit_stays_under_20_mb() -> None:
    tables = measured(800)
    large = jpeg(side_px=220, quality=95)
    data = run_of(tables, "demo", "pretrain-256", pictures=keyframes(tables, large))
    assert len(large) * 3 * len(shown_clips(data.policies[0])) > BUDGET_BYTES
    assert BUDGET_BYTES < len(build_report(data)) < 20e6


def test_equal_data_in_any_row_order_gives_the_same_page(data: ReportData) -> None:
    def shuffled(rows: pa.Table) -> pa.Table:
        return rows.take(pa.array(np.random.default_rng(3).permutation(rows.num_rows)))

    one = data.policies[0]
    outcome = Decisions(shuffled(one.outcome.decisions), shuffled(one.outcome.selection))
    tables = {name: shuffled(rows) for name, rows in one.measurements.items()}
    other = replace(one, outcome=outcome, measurements=tables, keyframes=shuffled(one.keyframes))
    again = replace(data, inputs=shuffled(data.inputs), videos=shuffled(data.videos), policies=(other,))
    assert build_report(again) == build_report(data)


def nothing() -> dict[str, pa.Table]:
    return {table.name: table.schema.empty_table() for table in (VIDEOS, SCANS, SHOTS, CLIPS, SIGNALS, FAILURES)}


def test_a_run_without_inputs_gives_a_page() -> None:
    tables = nothing()
    data = replace(run_of(tables, pictures=KEYFRAMES.schema.empty_table()), inputs=INPUTS.schema.empty_table())
    page = Page(build_report(data))
    assert "No input was given" in page.text
    assert not page.having("does-not-add-up")


def test_a_run_without_policies_gives_a_page() -> None:
    tables = measured(8)
    data = ReportData(inputs(tables), tables["videos"], tables["failures"])
    assert "9 distinct videos could be read." in Page(build_report(data)).text


def test_a_run_in_which_everything_failed_gives_a_page() -> None:
    tables = nothing()
    failed = [{"video_id": f"{i:032x}", "status": "failed", "reason": "not_media", "message": "no"} for i in range(10)]
    tables["videos"] = from_rows(failed, VIDEOS)
    page = Page(build_report(run_of(tables, pictures=KEYFRAMES.schema.empty_table())))
    assert "probe not_media 10" in page.text
    assert "0 of 10 go on, 10 stop here" in page.text
    assert "No gate has judged anything." in page.text
    assert not page.having("does-not-add-up")


def test_videos_without_clips_give_a_page() -> None:
    tables = measured(0)
    page = Page(build_report(run_of(tables, pictures=KEYFRAMES.schema.empty_table())))
    assert "Policy demo keeps 0 of 0 clips." in page.text
    assert not page.having("does-not-add-up")


def test_the_timeline_shows_each_clip_in_its_place_and_state(data: ReportData, page: Page) -> None:
    states = {row["subject_id"]: row["state"] for row in data.policies[0].outcome.selection.to_pylist()}
    chosen = "kept" if states["c" + "0" * 31] == "selected" else "rejected"
    strip = build_report(data).split('class="video"')[1]
    blocks = Page(strip[strip.index("<svg") : strip.index("</svg>") + 6])
    assert len(blocks.having("shot")) == len(
        [s for s in data.policies[0].shots.to_pylist() if s["video_id"] == "0" * 32]
    )
    assert len(blocks.having("transition")) == len(blocks.having("shot")) - 1
    first = blocks.having(chosen)[0]
    assert float(first["x"]) == pytest.approx(0.75) and float(first["width"]) == pytest.approx(1000 * 6 / 300 - 1.5)


def test_policies_that_judged_other_clips_get_strips_and_counts_of_their_own() -> None:
    long, short = measured(40), measured(16)
    both = [run_of(long, "demo").policies[0], run_of(short, "pretrain-256").policies[0]]
    data = replace(run_of(long), policies=tuple(both))
    assert [[one.policy.name for one in group] for group in data.scan_groups] == [["demo"], ["pretrain-256"]]
    page = Page(build_report(data))
    assert "clips for demo" in page.text and "clips for pretrain-256" in page.text
    assert "5 / 2 shots" in page.text
    assert not page.having("does-not-add-up")


def test_rows_of_another_policy_are_refused() -> None:
    tables = measured(4)
    with pytest.raises(ValueError, match=r"policy 'demo' was given decisions of \['pretrain-256'\]"):
        ReportPolicy(load_policy("demo"), decide(load_policy("pretrain-256"), tables), tables)


def test_nearest_of_nothing_is_nothing() -> None:
    assert nearest(DECISIONS.schema.empty_table(), None, 3).num_rows == 0


def test_real_video_gives_a_page_with_its_frames(samples: Path) -> None:
    path = samples / "carphone_pristine.mp4"
    request = {"path": str(path), "video_id": "0" * 32}
    tables = probe.run(request, lambda: None)[1] | scan.run(request, lambda: None)[1]
    tables["failures"] = FAILURES.schema.empty_table()
    policy = load_policy("demo")
    judged = ReportPolicy(policy, decide(policy, tables), tables, tables["keyframes"])
    given_inputs = from_rows([{"uri": path.as_uri(), "video_id": "0" * 32, "state": "video"}], INPUTS)
    page = Page(build_report(ReportData(given_inputs, tables["videos"], tables["failures"], (judged,))))
    assert len([tag for tag, _ in page.elements if tag == "image"]) >= 3
    assert "carphone_pristine.mp4" in page.text
    assert not page.having("does-not-add-up")
