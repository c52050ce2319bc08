"""The ledger and the selection: laws that hold for any tables, and cases that are easy to get wrong."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.buckets import assign
from pipelines.policy import (
    Decisions,
    OrientationQuota,
    Policy,
    check_states,
    decide,
    diff,
    funnel,
    load_policy,
    wanted_videos,
)
from pipelines.policy.placing import bucket_codes
from pipelines.policy.quotas import kept_counts
from pipelines.tables import CLIPS, DECISIONS, FAILURES, INPUTS, SCANS, SELECTION, SIGNALS, TABLES, VIDEOS, from_rows

POLICY = """\
name: law
gates:
  source_duration: {column: videos.duration_s, min: 4, max: 60, on_failure: reject}
  progressive: {column: videos.is_interlaced, in: [false], on_failure: pass}
  intact: {column: scans.corrupt_frame_count, max: 3, on_failure: reject}
  duration: {column: clips.duration_s, min: 4, max: 12, on_failure: reject}
  border: {column: signals.border_kind, not_in: [picture_in_picture], on_failure: pass}
  motion: {column: signals.motion_score, min: 2, on_failure: reject}
  jitter: {column: signals.jitter, max: 0.5, on_failure: pass}
quotas: {orientation: {landscape: 0.6}}
buckets:
  aspects: {"16:9": [352, 192], "1:1": [256, 256], "9:16": [192, 352]}
  durations:
    - {name: 4s, min_s: 4, max_s: 8, latent_frames: 16}
    - {name: 8s, min_s: 8, max_s: 13, latent_frames: 24}
"""
Tables = dict[str, pa.Table]


@pytest.fixture(scope="session")
def policy_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("policy") / "law.yaml"
    path.write_text(POLICY)
    return str(path)


def maybe(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(values, values, values, st.none())


@st.composite
def measured(draw: st.DrawFn) -> Tables:
    """Tables as a run may leave them: failed probes, failed and missing scans, missing and null measurements."""
    score = maybe(st.one_of(st.floats(0, 20), st.just(float("nan"))))
    rows: dict[str, list[dict]] = {name: [] for name in ("inputs", "videos", "scans", "clips", "signals", "failures")}
    for number in range(draw(st.integers(0, 6))):
        video = f"v{number}"
        rows["inputs"].append({"uri": f"file:///{number}", "video_id": video, "state": "video"})
        if draw(st.booleans()):
            rows["inputs"].append({"uri": f"file:///copy{number}", "video_id": video, "state": "copy"})
        if draw(st.integers(0, 5)) == 0:
            rows["videos"].append({"video_id": video, "status": "failed", "reason": "truncated"})
            continue
        facts = {"duration_s": draw(score), "is_interlaced": draw(maybe(st.booleans()))}
        rows["videos"].append({"video_id": video, "status": "ok", **facts})
        scan = draw(st.sampled_from(["ok", "ok", "ok", "failed", "absent"]))
        if scan == "failed":
            rows["scans"].append({"video_id": video, "status": "failed", "reason": "decode_error"})
        if scan != "ok":
            continue
        count = draw(st.integers(0, 5))
        damage = draw(maybe(st.integers(0, 5)))
        rows["scans"].append({"video_id": video, "status": "ok", "clip_count": count, "corrupt_frame_count": damage})
        for index in range(count):
            clip = f"c{number}-{index}"
            width, height = draw(st.sampled_from([(640, 360), (360, 640), (100, 100)]))
            rows["clips"].append(
                {
                    "clip_id": clip,
                    "video_id": video,
                    "duration_s": draw(st.floats(2, 15)),
                    "crop_width_px": width,
                    "crop_height_px": height,
                }
            )
            if draw(st.integers(0, 5)):
                kind = draw(maybe(st.sampled_from(["none", "picture_in_picture"])))
                signals = {"border_kind": kind, "motion_score": draw(score), "jitter": draw(score)}
                rows["signals"].append({"clip_id": clip, **signals})
            else:
                rows["failures"].append({"stage": "scan", "key": clip, "reason": "timeout"})
    rows["inputs"].append({"uri": "file:///broken", "state": "failed", "reason": "empty"})
    return {name: from_rows(found, TABLES[name]) for name, found in rows.items()}


def violations(policy: Policy, tables: Mapping[str, pa.Table], outcome: Decisions) -> list[str]:
    return check_states(tables["inputs"], tables["videos"], tables["scans"], tables["clips"], outcome.selection, policy)


def passed(outcome: Decisions, gate: str) -> set[str]:
    rows = outcome.decisions
    return set(rows.filter((pc.field("gate") == gate) & (pc.field("verdict") == "pass"))["subject_id"].to_pylist())


@given(measured())
@settings(max_examples=60, deadline=None)
def test_counts_always_add_up_and_every_subject_ends_in_one_state(policy_path: str, tables: Tables) -> None:
    policy = load_policy(policy_path)
    outcome = decide(policy, tables)
    assert violations(policy, tables, outcome) == []
    outcome.decisions.validate(full=True)
    assert outcome.decisions.schema.equals(DECISIONS.schema) and outcome.selection.schema.equals(SELECTION.schema)


@given(measured())
@settings(max_examples=40, deadline=None)
def test_the_funnel_loses_nobody(policy_path: str, tables: Tables) -> None:
    policy = load_policy(policy_path)
    outcome = decide(policy, tables)
    steps = funnel(policy, outcome.decisions, outcome.selection).to_pylist()
    states = outcome.selection.to_pylist()
    for kind, final, size in (("video", "yielded_clips", tables["videos"]), ("clip", "selected", tables["clips"])):
        mine = [step for step in steps if step["subject_kind"] == kind]
        assert mine[0]["in"] == size.num_rows
        assert all(step["in"] == step["rejected"] + step["errors"] + step["out"] for step in mine)
        assert all(after["in"] == before["out"] for before, after in pairwise(mine))
        assert mine[-1]["out"] == sum(row["state"] == final for row in states)


@given(measured(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_never_matters(policy_path: str, tables: Tables, random: object) -> None:
    policy = load_policy(policy_path)
    shuffled = {}
    for name, table in tables.items():
        order = list(range(table.num_rows))
        random.shuffle(order)  # type: ignore[attr-defined]
        shuffled[name] = table.take(pa.array(order, pa.int64()))
    one, other = decide(policy, tables), decide(policy, shuffled)
    assert one.decisions.equals(other.decisions) and one.selection.equals(other.selection)


@given(measured(), st.floats(0, 20), st.floats(0, 20))
@settings(max_examples=30, deadline=None)
def test_loosening_a_threshold_never_shrinks_what_passes_that_gate(
    policy_path: str, tables: Tables, a: float, b: float
) -> None:
    loose, strict = (
        decide(load_policy(policy_path, [f"gates.motion.min={bound}"]), tables) for bound in sorted((a, b))
    )
    assert passed(loose, "motion") >= passed(strict, "motion")


@given(measured())
@settings(max_examples=20, deadline=None)
def test_a_recut_with_the_same_policy_is_identical(policy_path: str, tables: Tables) -> None:
    first, second = (decide(load_policy(policy_path), tables) for _ in range(2))
    assert first.decisions.equals(second.decisions) and first.selection.equals(second.selection)
    assert diff(first.selection, second.selection).num_rows == 0


@given(measured())
@settings(max_examples=30, deadline=None)
def test_every_gate_whose_measurement_exists_speaks(policy_path: str, tables: Tables) -> None:
    outcome = decide(load_policy(policy_path), tables)
    spoke = outcome.decisions.filter(pc.field("gate") == "motion")["subject_id"].to_pylist()
    assert set(spoke) >= set(tables["signals"]["clip_id"].to_pylist())
    assert len(spoke) == len(set(spoke))


@given(measured())
@settings(max_examples=30, deadline=None)
def test_a_scan_is_wanted_exactly_where_no_gate_on_container_facts_rejects(policy_path: str, tables: Tables) -> None:
    policy = load_policy(policy_path)
    stopped = {
        row["subject_id"]
        for row in decide(policy, tables).selection.to_pylist()
        if row["gate"] in ("probe", "source_duration", "progressive")
    }
    wanted = wanted_videos([policy], tables["videos"])
    assert set(wanted) == set(tables["videos"]["video_id"].to_pylist()) - stopped
    assert wanted == sorted(wanted)


# -- cases ------------------------------------------------------------------------------------------------------------


def one_video(**changes: object) -> Tables:
    """A good video with one good clip; `changes` are columns by name, None meaning no measurement."""
    video: dict[str, object] = {"video_id": "v", "status": "ok", "duration_s": 10.0, "is_interlaced": False}
    scan: dict[str, object] = {"video_id": "v", "status": "ok", "clip_count": 1, "corrupt_frame_count": 0}
    clip: dict[str, object] = {
        "clip_id": "c",
        "video_id": "v",
        "duration_s": 5.0,
        "crop_width_px": 640,
        "crop_height_px": 360,
    }
    signals: dict[str, object] = {"clip_id": "c", "border_kind": "none", "motion_score": 3.0, "jitter": 0.1}
    for row, prefix in ((video, "video_"), (scan, "scan_"), (clip, "clip_"), (signals, "")):
        row |= {name.removeprefix(prefix): value for name, value in changes.items() if name.removeprefix(prefix) in row}
        changes = {name: value for name, value in changes.items() if name.removeprefix(prefix) not in row}
    assert not changes
    return {
        "videos": from_rows([video], VIDEOS),
        "scans": from_rows([scan], SCANS),
        "clips": from_rows([clip], CLIPS),
        "signals": from_rows([signals], SIGNALS),
    }


def state_of(outcome: Decisions, subject: str) -> tuple[str, str | None, str | None]:
    (row,) = outcome.selection.filter(pc.field("subject_id") == subject).to_pylist()
    return row["state"], row["gate"], row["reason"]


def said(outcome: Decisions, gate: str) -> dict[str, object]:
    (row,) = outcome.decisions.filter(pc.field("gate") == gate).to_pylist()
    return {name: row[name] for name in ("subject_id", "score", "value", "threshold", "verdict", "cause")}


def test_a_good_clip_is_selected_into_its_bucket(policy_path: str) -> None:
    outcome = decide(load_policy(policy_path), one_video())
    (clip,) = outcome.selection.filter(pc.field("subject_kind") == "clip").to_pylist()
    assert (clip["state"], clip["bucket"], clip["weight"], clip["video_id"]) == ("selected", "16x9-4s", 1.0, "v")
    assert state_of(outcome, "v") == ("yielded_clips", None, None)
    motion = {
        "subject_id": "c",
        "score": 3.0,
        "value": None,
        "threshold": ">= 2",
        "verdict": "pass",
        "cause": "quality",
    }
    assert said(outcome, "motion") == motion
    assert said(outcome, "border")["value"] == "none" and said(outcome, "progressive")["value"] == "false"


def test_bounds_are_inclusive(policy_path: str) -> None:
    assert state_of(decide(load_policy(policy_path), one_video(motion_score=2.0, jitter=0.5)), "c")[0] == "selected"


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_failed_measurement_is_an_error_and_never_a_low_score(policy_path: str, missing: float | None) -> None:
    outcome = decide(load_policy(policy_path), one_video(motion_score=missing))
    assert said(outcome, "motion") | {"subject_id": ""} == {
        "subject_id": "", "score": None, "value": None, "threshold": ">= 2", "verdict": "reject", "cause": "error"
    }  # fmt: skip
    assert state_of(outcome, "c") == ("failed", "motion", "not_measured")
    excused = decide(load_policy(policy_path), one_video(jitter=missing))
    assert (said(excused, "jitter")["verdict"], said(excused, "jitter")["cause"]) == ("pass", "error")
    assert state_of(excused, "c")[0] == "selected"


def test_a_failed_measurement_has_the_reason_on_record(policy_path: str) -> None:
    tables = one_video() | {"failures": from_rows([{"stage": "scan", "key": "c", "reason": "timeout"}], FAILURES)}
    tables["signals"] = SIGNALS.schema.empty_table()
    assert state_of(decide(load_policy(policy_path), tables), "c") == ("failed", "motion", "timeout")


def test_all_gates_speak_and_the_first_that_rejects_is_the_funnels(policy_path: str) -> None:
    outcome = decide(load_policy(policy_path), one_video(clip_duration_s=3.0, motion_score=0.0, jitter=0.9))
    assert [said(outcome, gate)["verdict"] for gate in ("duration", "border", "motion", "jitter")] == [
        "reject", "pass", "reject", "reject"
    ]  # fmt: skip
    assert state_of(outcome, "c") == ("rejected", "duration", None)


def test_an_unpaid_measurement_of_a_rejected_clip_is_silence_not_an_error(policy_path: str) -> None:
    tables = one_video(clip_duration_s=3.0) | {"signals": SIGNALS.schema.empty_table()}
    outcome = decide(load_policy(policy_path), tables)
    assert "motion" not in outcome.decisions["gate"].to_pylist()
    assert state_of(outcome, "c") == ("rejected", "duration", None)


def test_clips_of_a_rejected_video_are_rejected_by_its_gate_and_still_measured(policy_path: str) -> None:
    outcome = decide(load_policy(policy_path), one_video(video_duration_s=3.0))
    assert state_of(outcome, "v") == state_of(outcome, "c") == ("rejected", "source_duration", None)
    assert said(outcome, "motion")["verdict"] == "pass"


@pytest.mark.parametrize(
    ("changes", "video", "clip"),
    [
        ({"video_status": "failed"}, ("failed", "probe", "not_measured"), ("failed", "probe", "not_measured")),
        ({"scan_status": "failed"}, ("failed", "scan", "not_measured"), ("failed", "scan", "not_measured")),
        ({"corrupt_frame_count": 9}, ("rejected", "intact", None), ("rejected", "intact", None)),
        ({"corrupt_frame_count": None}, ("failed", "intact", "not_measured"), ("failed", "intact", "not_measured")),
        ({"clip_video_id": "w"}, ("without_clips", None, None), ("failed", "source", "no_video")),
        ({"crop_width_px": None}, ("yielded_clips", None, None), ("failed", "bucket", "no_bucket")),
    ],
)
def test_trouble_upstream_has_a_state_of_its_own(
    policy_path: str, changes: dict[str, object], video: tuple, clip: tuple
) -> None:
    if "video_status" in changes or "scan_status" in changes:
        tables = one_video()
        name = "videos" if "video_status" in changes else "scans"
        tables[name] = from_rows([{"video_id": "v", "status": "failed"}], TABLES[name])
    elif "clip_video_id" in changes:
        tables = one_video()
        tables["clips"] = from_rows([tables["clips"].to_pylist()[0] | {"video_id": "w"}], CLIPS)
    else:
        tables = one_video(**changes)
    outcome = decide(load_policy(policy_path), tables)
    assert (state_of(outcome, "v"), state_of(outcome, "c")) == (video, clip)


def test_a_wanted_video_that_no_scan_has_seen_says_so(policy_path: str) -> None:
    tables = one_video() | {"scans": SCANS.schema.empty_table(), "clips": CLIPS.schema.empty_table()}
    assert state_of(decide(load_policy(policy_path), tables), "v") == ("failed", "scan", "not_scanned")


def test_decide_reads_nothing_but_its_tables(policy_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(policy_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decide opened a file")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert state_of(decide(policy, one_video()), "c")[0] == "selected"


def test_missing_tables_columns_and_repeated_keys_are_named(policy_path: str) -> None:
    policy, tables = load_policy(policy_path), one_video()
    with pytest.raises(ValueError, match=r"needs the tables \['signals'\]"):
        decide(policy, {name: table for name, table in tables.items() if name != "signals"})
    with pytest.raises(ValueError, match=r"needs signals\.jitter"):
        decide(policy, tables | {"signals": tables["signals"].drop_columns(["jitter"])})
    with pytest.raises(ValueError, match="1 rows repeat a clip_id"):
        decide(policy, tables | {"signals": pa.concat_tables([tables["signals"]] * 2)})


# -- quota and buckets ------------------------------------------------------------------------------------------------


def many_clips(landscape: int, portrait: int) -> Tables:
    clip = one_video()["clips"].to_pylist()[0]
    clips = [clip | {"clip_id": f"l{i}"} for i in range(landscape)]
    clips += [clip | {"clip_id": f"p{i}", "crop_width_px": 360, "crop_height_px": 640} for i in range(portrait)]
    signals = [one_video()["signals"].to_pylist()[0] | {"clip_id": row["clip_id"]} for row in clips]
    scan = one_video()["scans"].to_pylist()[0] | {"clip_count": len(clips)}
    tables = {
        "clips": from_rows(clips, CLIPS),
        "signals": from_rows(signals, SIGNALS),
        "scans": from_rows([scan], SCANS),
    }
    return one_video() | tables


def kept(outcome: Decisions) -> set[str]:
    return set(outcome.selection.filter(pc.field("state") == "selected")["subject_id"].to_pylist())


def test_the_quota_keeps_the_wanted_mix_and_records_whom_it_drops(policy_path: str) -> None:
    outcome = decide(load_policy(policy_path), many_clips(100, 40))
    names = kept(outcome)
    assert (sum(n[0] == "l" for n in names), sum(n[0] == "p" for n in names)) == (60, 40)
    dropped = outcome.decisions.filter((pc.field("gate") == "orientation") & (pc.field("verdict") == "reject"))
    assert dropped.num_rows == 40 and set(dropped["cause"].to_pylist()) == {"quota"}
    assert state_of(outcome, dropped["subject_id"][0].as_py()) == ("resampled_away", "orientation", None)


def test_more_data_moves_the_quotas_boundary_and_reshuffles_nothing(policy_path: str) -> None:
    policy = load_policy(policy_path)
    assert kept(decide(policy, many_clips(100, 40))) < kept(decide(policy, many_clips(100, 50)))


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0, 1), st.booleans(), st.floats(0, 1))
def test_the_quotas_counts_hold_their_promises(
    landscape: int, portrait: int, share: float, strict: bool, most: float
) -> None:
    quota = OrientationQuota(share, strict, most)
    keep_l, keep_p = kept_counts(quota, landscape, portrait)
    assert 0 <= keep_l <= landscape and 0 <= keep_p <= portrait
    if strict:
        total = keep_l + keep_p
        assert abs(keep_l - share * total) <= 2
    else:
        assert landscape + portrait - keep_l - keep_p <= most * (landscape + portrait) + 1
        if not landscape or not portrait:
            assert (keep_l, keep_p) == (landscape, portrait)


@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000), st.floats(0, 30)), max_size=30))
def test_clips_are_placed_all_at_once_as_they_are_one_by_one(sizes: list[tuple[int, int, float]]) -> None:
    spec = load_policy("demo").buckets
    sizes += [(width, height, 5.0) for width, height in ((4, 3), (16, 9), (3, 4), (9, 16), (1, 1), (1920, 1080))]
    codes, names = bucket_codes(spec, *(np.array(column, float) for column in zip(*sizes, strict=True)))
    singly = [assign(*size, spec) for size in sizes]
    assert [names[code] if code >= 0 else None for code in codes] == [bucket and bucket.name for bucket in singly]


# -- what changed, and the check itself -------------------------------------------------------------------------------


def test_diff_tells_what_a_recut_changed(policy_path: str) -> None:
    tables = one_video(motion_score=1.0)
    old, new = (decide(load_policy(policy_path, [f"gates.motion.min={bound}"]), tables).selection for bound in (2, 1))
    (row,) = diff(old, new).to_pylist()
    assert row == {
        "subject_kind": "clip", "from_state": "rejected", "from_gate": "motion", "to_state": "selected", "to_gate": None,
        "count": 1, "examples": ["c"],
    }  # fmt: skip
    absent = diff(SELECTION.schema.empty_table(), new).to_pylist()
    assert {(row["from_state"], row["to_state"]) for row in absent} == {
        ("absent", "selected"),
        ("absent", "yielded_clips"),
    }


def test_the_check_finds_what_does_not_add_up(policy_path: str) -> None:
    policy, tables = load_policy(policy_path), one_video()
    tables["inputs"] = from_rows([{"uri": "file:///v", "video_id": "v", "state": "video"}], INPUTS)
    outcome = decide(policy, tables)
    assert violations(policy, tables, outcome) == []
    lost = Decisions(outcome.decisions, outcome.selection.filter(pc.field("subject_kind") == "video"))
    assert any("clips: 1 came in, their states sum to 0" in line for line in violations(policy, tables, lost))
    twice = Decisions(outcome.decisions, pa.concat_tables([outcome.selection] * 2))
    assert any("repeat a subject_id" in line for line in violations(policy, tables, twice))
    orphan = tables | {"inputs": INPUTS.schema.empty_table()}
    assert any("videos: 1 that inputs" in line for line in violations(policy, orphan, outcome))
    fewer = tables | {"scans": from_rows([tables["scans"].to_pylist()[0] | {"clip_count": 3}], SCANS)}
    assert any("says 3 clips, the table has 1" in line for line in violations(policy, fewer, outcome))
