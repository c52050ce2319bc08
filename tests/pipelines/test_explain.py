"""`explain`: a person names a clip, a video or a file, and reads everything known of it."""

import io
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from pipelines.explain import explain, nearness
from pipelines.policy import decide, load_policy
from pipelines.tables import CLIPS, FAILURES, INPUTS, KEYFRAMES, SCANS, SHOTS, SIGNALS, VIDEOS, from_rows

VIDEO, OTHER = "ab12" + "0" * 28, "ab99" + "1" * 28
CLIP, SECOND = "cd34" + "2" * 28, "cd34" + "3" * 28


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    """Two videos (one unreadable as media), a file that could not be read, two clips, two policies' decisions."""
    facts = {"duration_s": 20.0, "width_px": 640, "height_px": 360, "fps": 25.0, "is_interlaced": False}
    clip = {
        "video_id": VIDEO,
        "shot_index": 0,
        "time_base_num": 1,
        "time_base_den": 1000,
        "crop_width_px": 640,
        "crop_height_px": 360,
    }
    span = [
        {"start_pts": 1000, "end_pts": 7000, "start_s": 1.0, "duration_s": 6.0},
        {"start_pts": 7000, "end_pts": 12000, "start_s": 7.0, "duration_s": 5.0},
    ]
    good = {
        "border_kind": "none",
        "border_share": 0.0,
        "black_share": 0.0,
        "flat_share": 0.0,
        "flash_count": 0,
        "sharpness": 90.0,
    }
    good |= {
        "static_share": 0.0,
        "duplicate_share": 0.0,
        "slideshow_score": 0.0,
        "flow_px": 1.0,
        "jitter": 0.01,
        "shots_per_s": 0.0,
    }
    found = {
        "inputs": from_rows(
            [
                {"uri": "file:///reels/the%20city.mp4", "video_id": VIDEO, "state": "video", "batch": "default"},
                {"uri": "file:///reels/copy.mp4", "video_id": VIDEO, "state": "copy", "batch": "default"},
                {"uri": "file:///reels/text.mp4", "video_id": OTHER, "state": "video", "batch": "default"},
                {"uri": "file:///reels/empty.mp4", "state": "failed", "reason": "empty", "batch": "default"},
            ],
            INPUTS,
        ),
        "videos": from_rows(
            [
                {"video_id": VIDEO, "status": "ok", **facts},
                {"video_id": OTHER, "status": "failed", "reason": "not_media"},
            ],
            VIDEOS,
        ),
        "scans": from_rows([{"video_id": VIDEO, "status": "ok", "clip_count": 2, "corrupt_frame_count": 0}], SCANS),
        "shots": from_rows(
            [{"video_id": VIDEO, "index": 0, "start_s": 0.0, "end_s": 20.0, "clip_count": 2, "transition": "start"}],
            SHOTS,
        ),
        "clips": from_rows(
            [{"clip_id": key, **clip, **at} for key, at in zip((CLIP, SECOND), span, strict=True)], CLIPS
        ),
        "signals": from_rows(
            [{"clip_id": CLIP, **good, "motion_score": 1.9}, {"clip_id": SECOND, **good, "motion_score": 40.0}], SIGNALS
        ),
        "keyframes": from_rows([{"clip_id": CLIP, "index": index} for index in range(3)], KEYFRAMES),
        "failures": from_rows(
            [{"stage": "probe", "key": OTHER, "reason": "not_media", "message": "[red]no media[/]"}], FAILURES
        ),
    }
    policies = [load_policy("demo", ["gates.motion.min=2"]), load_policy("pretrain-256")]
    outcomes = [decide(policy, found) for policy in policies]
    found["decisions"] = pa.concat_tables([outcome.decisions for outcome in outcomes])
    found["selection"] = pa.concat_tables([outcome.selection for outcome in outcomes])
    return found


def test_a_clip_is_explained_by_the_beginning_of_its_id(tables: dict[str, pa.Table]) -> None:
    sample = {"clip_id": [SECOND], "video_id": [VIDEO], "bucket": ["16x9-4s"], "shard": ["16x9-4s/shard-00000.tar"]}
    index = pa.table(
        sample | {"sample_index": [3], "mp4_offset": [512], "mp4_size_bytes": [1000], "sha256": ["f" * 64]}
    )
    page = explain(tables, SECOND[:6], {"demo": index}, {"scan fingerprint": "0123abcd"})
    assert (page.kind, page.subject_id) == ("clip", SECOND)
    text = page.to_text()
    for word in (
        "the%20city.mp4",
        "copy.mp4",
        "start_pts",
        "7000",
        "signals.motion_score",
        "40",
        "selected",
        "16x9-4s",
    ):
        assert word in text
    assert "shard-00000.tar" in text and "512" in text and "0123abcd" in text
    assert "pretrain-256" in text and "width" in text


def test_thresholds_verdicts_and_near_misses_stand_beside_each_score(tables: dict[str, pa.Table]) -> None:
    gates = explain(tables, CLIP).to_dict()["sections"]["Gates"]
    (motion,) = [row for row in gates if row["gate"] == "motion" and row["policy"] == "demo"]
    assert (motion["score"], motion["threshold"], motion["verdict"]) == ("1.9", ">= 2", "reject")
    assert motion["note"] == "near miss: 5.0% below 2"
    states = {
        row["policy"]: (row["state"], row["gate"])
        for row in explain(tables, CLIP).to_dict()["sections"]["States"]
        if row["subject_kind"] == "clip"
    }
    assert states == {"demo": ("rejected", "motion"), "pretrain-256": ("rejected", "width")}


def test_a_video_is_explained_with_its_shots_and_its_clips_states(tables: dict[str, pa.Table]) -> None:
    sections = explain(tables, VIDEO[:4]).to_dict()["sections"]
    assert [row["clip_id"] for row in sections["Clips"]] == [CLIP, SECOND]
    assert "demo: rejected at motion" in sections["Clips"][0]["state"]
    assert sections["Shots"][0]["span"] == "0.000 to 20.000 s"
    assert {row["column"] for row in sections["Probe"]} >= {"duration_s", "fps"}


@pytest.mark.parametrize("name", ["the city.mp4", "reels/the city.mp4", "/reels/copy.mp4", VIDEO.upper()])
def test_a_video_may_be_named_by_its_file(tables: dict[str, pa.Table], name: str) -> None:
    assert explain(tables, name).subject_id == VIDEO


def test_failures_are_explained_too(tables: dict[str, pa.Table]) -> None:
    assert "not_media" in explain(tables, OTHER).to_text()
    page = explain(tables, "empty.mp4")
    assert page.kind == "input" and "empty" in page.to_text()


def test_an_ambiguous_or_unknown_name_is_answered_with_what_is_near(tables: dict[str, pa.Table]) -> None:
    with pytest.raises(ValueError, match=r"'cd34' fits 2: clip cd342.*give more of the id"):
        explain(tables, "cd34")
    with pytest.raises(ValueError, match=f"no clip, video or file goes by 'ab13'; the closest ids are.*{VIDEO}"):
        explain(tables, "ab13")
    with pytest.raises(ValueError, match=f"closest ids are {CLIP}"):
        explain(tables, CLIP[:-1] + "7")
    with pytest.raises(ValueError, match="no clip, video or file"):
        explain(tables, "")
    with pytest.raises(ValueError, match="no clip or video is known here yet"):
        explain({}, "ab")


def test_texts_of_files_are_never_read_as_markup(tables: dict[str, pa.Table]) -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    explain(tables, OTHER).print(console)
    assert "[red]no media[/]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_explaining_writes_nothing(
    tables: dict[str, pa.Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    explain(tables, CLIP).to_text()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("score", "threshold", "verdict", "said"),
    [
        (1.9, ">= 2", "reject", "near miss: 5.0% below 2"),
        (2.1, ">= 2", "pass", "narrow pass: 5.0% above 2"),
        (1.0, ">= 2", "reject", ""),
        (7.2, "0.5..7", "reject", "near miss: 2.9% above 7"),
        (0.0, "<= 0", "pass", ""),
        (30.0, "2..7200", "pass", ""),
        (None, ">= 2", "reject", ""),
        (3.0, "in 3|4", "pass", ""),
    ],
)
def test_near_means_within_a_tenth(score: float | None, threshold: str, verdict: str, said: str) -> None:
    assert nearness(score, threshold, verdict) == said
