"""The main job as a person runs it: what comes out, what a second run does, and what the same inputs give elsewhere."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.end_to_end.conftest import Command, shard_digests, tree

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def index(out: Path) -> list[dict]:
    return pq.read_table(out / "shards/demo/index.parquet").to_pylist()


def rows(out: Path, table: str) -> list[dict]:
    return [
        row for path in sorted((out / "tables" / table).rglob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def test_one_command_gives_shards_a_report_and_a_funnel(curated: Path) -> None:
    assert index(curated)
    assert (curated / "report.html").stat().st_size > 10_000
    assert json.loads((curated / "run.json").read_text())["steps"]
    assert (curated / "policies/demo.yaml").exists()


def test_plain_tar_lists_the_shards(curated: Path) -> None:
    for path in (curated / "shards").rglob("*.tar"):
        names = subprocess.run(["tar", "tf", str(path)], capture_output=True, text=True, check=True).stdout.split()
        assert {name.split(".", 1)[1] for name in names} >= {"mp4", "json"}


def test_plain_webdataset_reads_every_sample_of_the_index(curated: Path) -> None:
    import webdataset as wds

    urls = [str(path) for path in sorted((curated / "shards").rglob("*.tar"))]
    keys = [sample["__key__"] for sample in wds.WebDataset(urls, shardshuffle=False)]
    assert sorted(keys) == sorted(row["clip_id"] for row in index(curated))


def test_hugging_face_datasets_reads_the_shards(curated: Path, tmp_path: Path) -> None:
    import datasets

    urls = [str(path) for path in sorted((curated / "shards").rglob("*.tar"))]
    loaded = datasets.load_dataset(
        "webdataset", data_files=urls, split="train", cache_dir=str(tmp_path), streaming=True
    )
    names = {sample["__key__"] for sample in loaded.cast_column("mp4", datasets.Video(decode=False))}
    assert names == {row["clip_id"] for row in index(curated)}


def test_every_span_lies_inside_the_shot_that_it_names(curated: Path) -> None:
    shots = {(row["video_id"], row["index"]): row for row in rows(curated, "shots")}
    clips = rows(curated, "clips")
    assert clips
    for clip in clips:
        shot = shots[clip["video_id"], clip["shot_index"]]
        assert shot["start_pts"] <= clip["start_pts"] < clip["end_pts"] <= shot["end_pts"]


def test_every_exported_clip_decodes_to_the_frames_and_duration_of_its_row(curated: Path, tmp_path: Path) -> None:
    import av

    for row in index(curated):
        with tarfile.open(next((curated / "shards/demo").rglob(row["shard"].rpartition("/")[2]))) as tar:
            names = {member.name: member for member in tar}
            if f"{row['clip_id']}.mp4" not in names:
                continue
            path = tmp_path / "clip.mp4"
            path.write_bytes(tar.extractfile(names[f"{row['clip_id']}.mp4"]).read())
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = [(frame.pts, frame.duration) for frame in container.decode(stream)]
            duration_s = float((frames[-1][0] + frames[-1][1] - frames[0][0]) * stream.time_base)
        assert len(frames) == row["frame_count"]
        assert duration_s == pytest.approx(row["duration_s"], abs=1.5 / row["fps"] / 10)


def test_shards_verify_reads_every_sample_back(curated: Path, reelmill: Command) -> None:
    assert reelmill("shards", "verify", curated).status == 0
    assert "all" in reelmill("shards", "stats", curated).out


def test_a_second_run_measures_nothing_and_changes_nothing(curated: Path, reels: Path, reelmill: Command) -> None:
    before = {
        path: (curated / path).stat().st_mtime_ns
        for path in tree(curated)
        if path.startswith(("receipts", "tables", "shards"))
    }
    ended = reelmill("curate", reels, "--out", curated, "--policy", "demo")
    assert ended.status == 0
    after = {path: (curated / path).stat().st_mtime_ns for path in before}
    assert before == {path: after[path] for path in before}
    steps = {step["step"]: step for step in json.loads((curated / "run.json").read_text())["steps"]}
    assert steps["probe"]["done"] == steps["scan"]["done"] == steps["shards"]["done"] == 0


def test_another_folder_order_and_number_of_workers_give_the_same_bytes(
    curated: Path, reels: Path, reelmill: Command, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "näm es\nof 'all' \"kinds\""
    elsewhere.mkdir()
    for number, path in enumerate(sorted(reels.iterdir(), reverse=True)):
        shutil.copy(path, elsewhere / f"{number} {path.name}")
    ended = reelmill(
        "curate",
        *sorted(elsewhere.iterdir(), reverse=True),
        "--out",
        tmp_path / "out",
        "--policy",
        "demo",
        "--workers",
        1,
    )
    assert ended.status == 0, ended.err
    assert shard_digests(tmp_path / "out") == shard_digests(curated)


def test_a_changed_threshold_changes_decisions_without_measuring(
    curated: Path, reelmill: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(curated, out)
    receipts = {path: (out / path).stat().st_mtime_ns for path in tree(out) if path.startswith("receipts")}
    ended = reelmill("recut", out, "--policy", "demo", "--set", "gates.duration.min=4")
    assert ended.status == 0, ended.err
    assert "rejected (duration)" in ended.out
    assert receipts == {path: (out / path).stat().st_mtime_ns for path in tree(out) if path.startswith("receipts")}


def test_a_changed_scan_parameter_runs_the_scan_and_not_the_probe(
    curated: Path, reelmill: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(curated, out)
    ended = reelmill("curate", "--out", out, "--policy", "demo", "--set", "scan.trim_cut_s=0.25")
    assert ended.status == 0, ended.err
    steps = {step["step"]: step for step in json.loads((out / "run.json").read_text())["steps"]}
    assert steps["probe"]["done"] == 0
    assert steps["scan"]["done"] == 7


def test_explain_tells_all_that_is_known_of_a_clip(curated: Path, reelmill: Command) -> None:
    row = index(curated)[0]
    ended = reelmill("explain", curated, row["clip_id"][:8])
    assert ended.status == 0, ended.err
    for word in (row["clip_id"], row["video_id"], "motion", "shard"):
        assert word in ended.out
    assert reelmill("explain", curated, "feedbeef").status == 2
