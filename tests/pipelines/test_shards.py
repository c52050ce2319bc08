"""Promises of pipelines/shards. Clips are real: cut from the sample videos by the real exporter, called in this process."""

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.buckets import assign, spec_from_dict
from pipelines.shards import (
    ExportFailure,
    ExportItem,
    Packing,
    Sample,
    ShardsError,
    open_shards,
    publishing,
    read_sample,
    spread_order,
    stats,
    verify,
    write,
)
from pipelines.store import digest
from pipelines.video import export, recount
from pipelines.video.export_settings import ExportSettings
from pipelines.video.reading import MediaError, frames, open_video

SPEC = spec_from_dict(
    {
        "aspects": {"16:9": [112, 64], "1:1": [64, 64]},
        "durations": [
            {"name": "0s", "min_s": 0, "max_s": 0.5, "latent_frames": 1},
            {"name": "0.5s", "min_s": 0.5, "max_s": 2, "latent_frames": 2},
        ],
    }
)
QUICK = ExportSettings(preset="ultrafast", crf=30)
SMALL = Packing(max_bytes=10_000_000, max_samples=4, seed=7)
FILES = ("bikes.mp4", "bigbuckbunny.mp4", "b.mp4", "carphone_pristine.mp4")


@pytest.fixture(scope="session")
def clips(samples: Path) -> list[tuple[Path, dict[str, Any]]]:
    """(source, `clips` row) of 24 short clips from four sources."""
    found = []
    for name in FILES:
        with open_video(samples / name) as video:
            pts = [frame.pts or 0 for frame in itertools.islice(frames(video), 90)]
            base, size = video.time_base, (video.width_px, video.height_px)
        crop = (size[1], size[1]) if name.startswith("carphone") else size
        video_id = hashlib.sha256((samples / name).read_bytes()).hexdigest()[:32]
        for k in range(6):
            first, last = 12 * k, 12 * k + (8 if k % 2 else 20)
            row = {
                "video_id": video_id, "start_pts": pts[first], "end_pts": pts[last],
                "time_base_num": base.numerator, "time_base_den": base.denominator, "frame_count": last - first,
                "crop_left_px": 0, "crop_top_px": 0, "crop_width_px": crop[0], "crop_height_px": crop[1],
                "width_px": size[0], "height_px": size[1],
            }  # fmt: skip
            found.append((samples / name, row | {"clip_id": digest([video_id, first, last])[:32]}))
    return found


def samples_of(clips: list[tuple[Path, dict[str, Any]]], is_captioned: bool = True) -> list[Sample]:
    found = []
    for number, (_, clip) in enumerate(clips):
        duration_s = (clip["end_pts"] - clip["start_pts"]) * clip["time_base_num"] / clip["time_base_den"]
        bucket = assign(clip["crop_width_px"], clip["crop_height_px"], duration_s, SPEC)
        assert bucket is not None
        caption = f"Clip number {number}, naïve." if is_captioned else None
        found.append(Sample(clip, bucket, caption, {"scores": {"motion_score": number / 3}, "licence": None}))
    return found


class Exporter:
    """Runs the real export task in this process and remembers what it was asked for."""

    def __init__(self, clips: list[tuple[Path, dict[str, Any]]], order: Callable[[list[Any]], Any] = list):
        self.sources = {clip["clip_id"]: path for path, clip in clips}
        self.order = order
        self.asked: list[str] = []
        self.broken: dict[str, ExportFailure] = {}
        self.stop_after: int | None = None

    def __call__(self, items: Sequence[ExportItem]) -> Iterator[tuple[str, Mapping[str, Any] | ExportFailure]]:
        for item in self.order(list(items)):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(item.clip_id)
            if item.clip_id in self.broken:
                yield item.clip_id, self.broken[item.clip_id]
                continue
            try:
                facts, _ = export.run(item.request(str(self.sources[item.clip_id])), lambda: None)
                yield item.clip_id, facts
            except MediaError as error:
                yield item.clip_id, ExportFailure(error.reason, error.message, error.reason.is_retryable)


def decode(path: Path) -> tuple[int, float]:
    facts, _ = recount.run({"path": str(path), "threads": 1}, lambda: None)
    return facts["frame_count"], facts["duration_s"]


def tree(out: Path) -> dict[str, str]:
    """Every file under the output, by relative path, with its sha256."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="session")
def finished(clips: list[tuple[Path, dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with the shards of all clips; tests copy it before they change it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    report = write(out, "demo", "d1", samples_of(clips), Exporter(clips), QUICK, SMALL)
    assert (report.sample_count, report.exported_count, report.failures) == (24, 24, {})
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


# -- what is written ---------------------------------------------------------------------------------------------------


def test_every_clip_is_in_one_shard_of_its_bucket_and_nothing_else_is_left(out: Path, clips: Any) -> None:
    files = tree(out)
    assert all(name.startswith("shards/demo/") for name in files)
    expected = {sample.clip_id: sample for sample in samples_of(clips)}
    seen = {}
    for name in files:
        if name.endswith(".tar"):
            with tarfile.open(out / name) as tar:
                for member in tar.getmembers():
                    clip_id, _, suffix = member.name.partition(".")
                    seen.setdefault(clip_id, []).append(suffix)
                    assert expected[clip_id].bucket.name == name.split("/")[2]
                    assert (member.mode, member.mtime, member.uid, member.gid, member.uname) == (0o644, 0, 0, 0, "")
    assert seen == {clip_id: ["json", "mp4", "txt"] for clip_id in expected}


def test_the_json_holds_facts_span_and_metadata_and_no_path_or_time(out: Path, clips: Any) -> None:
    sample = samples_of(clips)[3]
    stored = read_sample(out, "demo", sample.clip_id)
    record = json.loads(stored.json)
    assert list(record) == sorted(record)
    assert record["source"]["start_pts"] == sample.clip["start_pts"]
    assert record["scores"] == {"motion_score": 1.0} and record["licence"] is None
    assert record["media"]["sha256"] == hashlib.sha256(stored.mp4).hexdigest()
    assert record["media"]["frame_count"] == sample.clip["frame_count"]
    assert stored.txt is not None and stored.txt.decode() == sample.caption
    text = stored.json.decode() + (out / "shards/demo/manifest.json").read_text()
    assert str(clips[3][0]) not in text and "bikes" not in text and str(out) not in text


def test_every_exported_clip_decodes_to_the_frames_and_duration_of_its_row(out: Path) -> None:
    report = verify(out, "demo", decode)
    assert report.is_sound, report.problems
    assert (report.sample_count, report.decoded_count) == (24, 24)
    assert report.shard_count == len(list((out / "shards").rglob("*.tar")))


def test_the_index_leads_to_the_bytes_with_one_read(out: Path) -> None:
    index = pq.read_table(out / "shards/demo/index.parquet").to_pylist()
    for row in index:
        with (out / "shards/demo" / row["shard"]).open("rb") as stream:
            data = os.pread(stream.fileno(), row["mp4_size_bytes"], row["mp4_offset"])
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
    order = [(row["shard"], row["sample_index"]) for row in index]
    assert order == sorted(order)


def test_without_a_caption_there_is_no_txt_member(clips: Any, tmp_path: Path) -> None:
    chosen = clips[:3]
    write(tmp_path, "demo", "d1", samples_of(chosen, is_captioned=False), Exporter(chosen), QUICK)
    assert read_sample(tmp_path, "demo", chosen[0][1]["clip_id"]).txt is None
    assert verify(tmp_path, "demo").is_sound
    assert [line.captioned for line in stats(tmp_path, "demo")] == [0] * len(stats(tmp_path, "demo"))


def test_stats_add_up(out: Path, clips: Any) -> None:
    lines = stats(out, "demo")
    assert sum(line.samples for line in lines) == 24
    assert sum(line.captioned for line in lines) == 24
    assert sum(line.size_bytes for line in lines) == sum(path.stat().st_size for path in out.rglob("*.tar"))
    by_name = {line.bucket: line for line in lines}
    assert by_name["16x9-0s"].sources == 3 and (by_name["16x9-0s"].width_px, by_name["16x9-0s"].height_px) == (112, 64)


# -- other readers -----------------------------------------------------------------------------------------------------


def test_plain_webdataset_reads_the_shards(out: Path, clips: Any) -> None:
    import webdataset

    urls = sorted(str(path) for path in out.rglob("*.tar"))
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode()
    found = {sample["__key__"]: sample for sample in dataset}
    assert set(found) == {clip["clip_id"] for _, clip in clips}
    for clip_id, sample in found.items():
        assert sample["json"]["clip_id"] == clip_id
        assert sample["txt"].startswith("Clip number")
        assert hashlib.sha256(sample["mp4"]).hexdigest() == sample["json"]["media"]["sha256"]


def test_hugging_face_datasets_reads_the_shards(out: Path, clips: Any, tmp_path: Path) -> None:
    import datasets

    urls = sorted(str(path) for path in out.rglob("*.tar"))
    dataset = datasets.load_dataset("webdataset", data_files=urls, split="train", cache_dir=str(tmp_path / "hf"))
    dataset = dataset.cast_column("mp4", datasets.Video(decode=False))
    assert {row["__key__"] for row in dataset} == {clip["clip_id"] for _, clip in clips}
    row = dataset[0]
    assert row["json"]["clip_id"] == row["__key__"] and row["txt"].startswith("Clip number")


def test_tar_itself_lists_and_extracts_the_shards(out: Path, tmp_path: Path) -> None:
    for path in out.rglob("*.tar"):
        listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        assert listed.stderr == "" and len(listed.stdout.split()) % 3 == 0
        subprocess.run(["tar", "xf", path, "-C", tmp_path], check=True)
    assert len(list(tmp_path.glob("*.mp4"))) == 24


# -- the same bytes, and nothing twice ---------------------------------------------------------------------------------


def test_another_folder_order_and_number_of_workers_give_the_same_bytes(
    finished: Path, clips: Any, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shuffled = [(Path(shutil.copy(path, moved / f"x-{path.name}.bin")), clip) for path, clip in clips]
    random.Random(3).shuffle(shuffled)
    by_clip = {sample.clip_id: sample for sample in samples_of(clips)}
    exporter = Exporter(shuffled, order=lambda items: random.Random(5).sample(items, len(items)))
    write(tmp_path / "other", "demo", "d1", [by_clip[clip["clip_id"]] for _, clip in shuffled], exporter, QUICK, SMALL)
    assert tree(tmp_path / "other") == tree(finished)


def test_a_second_write_does_nothing(out: Path, clips: Any) -> None:
    before, times = tree(out), {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    exporter = Exporter(clips)
    report = write(out, "demo", "d1", samples_of(clips), exporter, QUICK, SMALL)
    assert report.is_unchanged and exporter.asked == [] and tree(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}.items() <= times.items()


def test_a_recut_exports_only_what_is_new_and_takes_the_rest_from_the_tars(
    out: Path, clips: Any, tmp_path: Path
) -> None:
    fewer = [sample for number, sample in enumerate(samples_of(clips)) if number % 3]
    exporter = Exporter(clips)
    report = write(out, "demo", "d2", fewer, exporter, QUICK, SMALL)
    assert exporter.asked == [] and report.reused_count == len(fewer) == report.sample_count
    assert verify(out, "demo", decode).is_sound
    write(tmp_path / "fresh", "demo", "d2", fewer, Exporter(clips), QUICK, SMALL)
    assert tree(out) == tree(tmp_path / "fresh")
    back = write(out, "demo", "d1", samples_of(clips), exporter, QUICK, SMALL)
    assert len(exporter.asked) == back.exported_count == 24 - len(fewer)


def test_a_tar_whose_contents_stay_is_not_touched(out: Path, clips: Any) -> None:
    before = {path: path.stat().st_ino for path in out.rglob("*.tar")}
    changed = [
        Sample(s.clip, s.bucket, "Another caption." if s.bucket.name == "16x9-0s" else s.caption, s.metadata)
        for s in samples_of(clips)
    ]
    report = write(out, "demo", "d2", changed, Exporter(clips), QUICK, SMALL)
    assert report.exported_count == 0
    for path, inode in before.items():
        assert (path.stat().st_ino == inode) == (path.parent.name != "16x9-0s")
    assert verify(out, "demo", decode).is_sound


def test_another_policy_takes_exports_from_the_first_ones_tars(out: Path, clips: Any) -> None:
    exporter = Exporter(clips)
    report = write(out, "other", "d9", samples_of(clips)[:10], exporter, QUICK, Packing(max_samples=100))
    assert exporter.asked == [] and report.reused_count == 10
    assert verify(out, "other", decode).is_sound and verify(out, "demo").is_sound


def test_other_encoder_settings_export_everything_again(out: Path, clips: Any) -> None:
    exporter = Exporter(clips)
    write(out, "demo", "d1", samples_of(clips), exporter, ExportSettings(preset="ultrafast", crf=31), SMALL)
    assert len(exporter.asked) == 24


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_clip_that_cannot_be_exported_is_left_out_without_a_hole(clips: Any, tmp_path: Path) -> None:
    exporter = Exporter(clips)
    bad = [clip["clip_id"] for _, clip in clips[4:10]]
    exporter.broken = {clip_id: ExportFailure("decode_error", "made by the test") for clip_id in bad}
    report = write(tmp_path / "a", "demo", "d1", samples_of(clips), exporter, QUICK, SMALL)
    assert sorted(report.failures) == sorted(bad) and report.sample_count == 18
    shards = open_shards(tmp_path / "a", "demo")
    assert not set(bad) & set(shards.index.column("clip_id").to_pylist())
    for entry in shards.manifest["buckets"].items():
        tars = [shard for shard in shards.manifest["shards"] if shard["bucket"] == entry[0]]
        assert [shard["shard"] for shard in tars] == [f"{entry[0]}/shard-{k:05d}.tar" for k in range(len(tars))]
        assert [shard["samples"] for shard in tars[:-1]] == [SMALL.max_samples] * (len(tars) - 1)
    assert verify(tmp_path / "a", "demo", decode).is_sound
    again = write(tmp_path / "a", "demo", "d1", samples_of(clips), exporter, QUICK, SMALL)
    assert again.is_unchanged and sorted(again.failures) == sorted(bad)


def test_only_failures_that_may_pass_are_tried_again(clips: Any, tmp_path: Path) -> None:
    exporter = Exporter(clips)
    first, second = clips[0][1]["clip_id"], clips[1][1]["clip_id"]
    exporter.broken = {first: ExportFailure("timeout", "", True), second: ExportFailure("decode_error")}
    write(tmp_path, "demo", "d1", samples_of(clips), exporter, QUICK, SMALL)
    exporter.asked, exporter.broken = [], {}
    report = write(tmp_path, "demo", "d1", samples_of(clips), exporter, QUICK, SMALL)
    assert exporter.asked == [first] and list(report.failures) == [second]


def test_facts_that_do_not_fit_the_file_or_the_clip_are_a_failure(clips: Any, tmp_path: Path) -> None:
    def lying(items: Sequence[ExportItem]) -> Iterator[tuple[str, Any]]:
        changes = itertools.cycle([{"frame_count": 1}, {"size_bytes": 5}, {"sha256": None}, {"width_px": 1}])
        for (clip_id, facts), change in zip(Exporter(clips)(items), changes, strict=False):
            yield clip_id, {**facts, **change}  # type: ignore[dict-item]

    report = write(tmp_path, "demo", "d1", samples_of(clips)[:8], lying, QUICK, SMALL)
    assert report.sample_count == 0 and {failure.reason for failure in report.failures.values()} == {"internal_error"}
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_digest_that_lies_ends_as_a_failure_after_a_second_try(clips: Any, tmp_path: Path) -> None:
    def lying(items: Sequence[ExportItem]) -> Iterator[tuple[str, Any]]:
        for clip_id, facts in Exporter(clips)(items):
            yield clip_id, facts | {"sha256": "0" * 64} if clip_id == liar else facts  # type: ignore[operator]

    liar = clips[2][1]["clip_id"]
    report = write(tmp_path, "demo", "d1", samples_of(clips)[:8], lying, QUICK, SMALL)
    assert report.sample_count == 7 and list(report.failures) == [liar]
    assert verify(tmp_path, "demo", decode).is_sound


def test_an_unanswered_clip_is_an_error_not_a_silent_loss(clips: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="gave no answer for 1 clips"):
        write(tmp_path, "demo", "d1", samples_of(clips)[:2], lambda items: Exporter(clips)(items[:-1]), QUICK)
    assert not (tmp_path / "shards/demo/manifest.json").exists()


def test_mistakes_of_the_caller_are_named(clips: Any, tmp_path: Path) -> None:
    twice = samples_of(clips)[:1] * 2
    with pytest.raises(ValueError, match="was given twice"):
        write(tmp_path, "demo", "d1", twice, Exporter(clips), QUICK)
    with pytest.raises(ValueError, match=r"policy name '\.\./x'"):
        write(tmp_path, "../x", "d1", [], Exporter(clips), QUICK)
    with pytest.raises(ValueError, match="lacks"):
        Sample({"clip_id": "x"}, twice[0].bucket)
    with pytest.raises(ValueError, match=r"may not hold \['media'\]"):
        Sample(twice[0].clip, twice[0].bucket, None, {"media": 1})
    with pytest.raises(ValueError, match="use null for NaN"):
        write(
            tmp_path,
            "demo",
            "d1",
            [Sample(twice[0].clip, twice[0].bucket, None, {"x": float("nan")})],
            Exporter(clips),
            QUICK,
        )
    with pytest.raises(ValueError, match="at least 1"):
        Packing(max_samples=0)


# -- kill and resume ---------------------------------------------------------------------------------------------------


def test_a_run_that_stops_anywhere_continues_without_exporting_twice(
    finished: Path, clips: Any, tmp_path: Path
) -> None:
    exporter = Exporter(clips)
    for stop_after in range(0, 24, 5):
        exporter.stop_after = stop_after + 3
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "o", "demo", "d1", samples_of(clips), exporter, QUICK, SMALL)
        with pytest.raises(ShardsError, match="never finished or are being changed"):
            open_shards(tmp_path / "o", "demo")
    exporter.stop_after = None
    write(tmp_path / "o", "demo", "d1", samples_of(clips), exporter, QUICK, SMALL)
    assert sorted(exporter.asked) == sorted({clip["clip_id"] for _, clip in clips})
    assert tree(tmp_path / "o") == tree(finished)


KILLED = """
import os, random, sys, signal
from pathlib import Path
sys.path.insert(0, {folder!r})
import test_shards as t
from pipelines.store import Store
import pipelines.shards.publishing as publishing
seed, out, plan = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
clips = t.json.loads(Path(sys.argv[4]).read_text())
clips = [(Path(path), clip) for path, clip in clips]
left = random.Random(seed).randrange(2, 60)
def tick():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
# A file operation is where a kill can do harm: one is chosen at random, before or after it.
for owner, name in (
    (Path, "replace"), (Path, "unlink"), (Store, "publish"), (publishing, "move"), (publishing, "publish"), (publishing, "clean")
):
    original = getattr(owner, name)
    def wrapped(*args, original=original, **kwargs):
        tick(); result = original(*args, **kwargs); tick()
        return result
    setattr(owner, name, wrapped)
exporter = t.Exporter(clips)
chosen = t.samples_of(clips)
if plan == "fewer":
    chosen = [sample for number, sample in enumerate(chosen) if number % 4]
t.write(out, "demo", plan, chosen, exporter, t.QUICK, t.SMALL)
"""


@pytest.mark.slow
def test_kill_9_at_random_file_operations_leaves_what_an_unbroken_run_leaves(
    finished: Path, clips: Any, tmp_path: Path
) -> None:
    """Two selections alternate, so that kills also fall into the replacing of published shards."""
    script, table = tmp_path / "killed.py", tmp_path / "clips.json"
    script.write_text(KILLED.format(folder=str(Path(__file__).parent)))
    table.write_text(json.dumps([(str(path), clip) for path, clip in clips]))
    out, killed = tmp_path / "o", 0
    for seed in range(12):
        plan = ("all", "fewer")[seed // 3 % 2]
        done = subprocess.run([sys.executable, script, str(seed), out, plan, table], capture_output=True, check=False)
        assert done.returncode in (0, -9), done.stderr.decode()[-800:]
        killed += done.returncode == -9
        if (out / "shards/demo/manifest.json").exists():
            assert verify(out, "demo").is_sound
    assert killed >= 4
    write(out, "demo", "d1", samples_of(clips), Exporter(clips), QUICK, SMALL)
    assert tree(out) == tree(finished)


@pytest.mark.parametrize("moves", range(4))
def test_a_stop_while_tars_are_being_replaced_loses_no_export(
    moves: int, out: Path, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop after so many tars were moved to their places; the next run computes nothing again and ends right."""
    fewer = [sample for number, sample in enumerate(samples_of(clips)) if number % 5]
    move, done = Path.replace, itertools.count()

    def replace(source: Path, target: Path) -> Path:
        if ".next" in str(source) and next(done) == moves:
            raise KeyboardInterrupt
        return move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "move", lambda store, source, target: replace(out / source, out / target))
        with pytest.raises(KeyboardInterrupt):
            write(out, "demo", "d2", fewer, Exporter(clips), QUICK, SMALL)
    with pytest.raises(ShardsError, match="being changed"):
        open_shards(out, "demo")
    exporter = Exporter(clips)
    write(out, "demo", "d2", fewer, exporter, QUICK, SMALL)
    assert exporter.asked == [] and verify(out, "demo", decode).is_sound
    assert not (out / "shards/demo/.next").exists() and not (out / "exports").exists()


# -- damage ------------------------------------------------------------------------------------------------------------


def _a_row(out: Path, number: int = 5) -> dict[str, Any]:
    return dict(open_shards(out, "demo").index.slice(number, 1).to_pylist()[0])


@pytest.mark.parametrize("member", ["mp4", "json", "txt"])
def test_a_flipped_bit_is_reported_with_shard_and_sample(member: str, out: Path) -> None:
    row = _a_row(out)
    path = out / "shards/demo" / row["shard"]
    data = bytearray(path.read_bytes())
    data[row[f"{member}_offset"] + row[f"{member}_size_bytes"] // 2] ^= 4
    path.write_bytes(data)
    problems = verify(out, "demo").problems
    assert {problem.shard for problem in problems} == {row["shard"]}
    assert f"{row['clip_id']}.{member}" in {problem.sample for problem in problems}
    with pytest.raises(ShardsError, match="is damaged"):
        read_sample(out, "demo", row["clip_id"])


def test_a_damaged_header_a_cut_tar_a_missing_and_a_foreign_one_are_each_reported(out: Path, tmp_path: Path) -> None:
    row = _a_row(out, 2)
    shard, clip_id = row["shard"], row["clip_id"]
    path = out / "shards/demo" / shard
    whole = path.read_bytes()

    damaged = bytearray(whole)
    damaged[row["mp4_offset"] - 512 + 3] ^= 1
    path.write_bytes(damaged)
    assert clip_id in " ".join(map(str, verify(out, "demo").problems))

    path.write_bytes(whole[: row["mp4_offset"] + row["mp4_size_bytes"] // 2])
    problems = verify(out, "demo").problems
    assert any(problem.shard == shard and "bytes, the manifest says" in problem.message for problem in problems)
    assert any(problem.shard == shard and clip_id in str(problem.sample) for problem in problems)

    path.unlink()
    assert any(
        problem.shard == shard and "cannot be read" in problem.message for problem in verify(out, "demo").problems
    )

    path.write_bytes(whole)
    shutil.copy(path, path.with_name("shard-00099.tar"))
    [problem] = verify(out, "demo").problems
    assert (
        problem.shard is not None and problem.shard.endswith("shard-00099.tar") and "in no manifest" in problem.message
    )


def test_a_sample_added_or_taken_away_is_reported(out: Path) -> None:
    row = _a_row(out, 0)
    path = out / "shards/demo" / row["shard"]
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            if not member.name.startswith(row["clip_id"]):
                tar.addfile(member, io.BytesIO(data))
        extra = tarfile.TarInfo("f" * 32 + ".mp4")
        tar.addfile(extra, io.BytesIO(b""))
    found = {(problem.sample, problem.message) for problem in verify(out, "demo").problems}
    assert (row["clip_id"], "the index has this sample, the shard does not") in found
    assert ("f" * 32 + ".mp4", "this member is not in the index") in found


def test_an_index_of_another_write_or_no_manifest_is_noticed(out: Path) -> None:
    index = out / "shards/demo/index.parquet"
    table = pq.read_table(index)
    pq.write_table(table.slice(0, table.num_rows - 1), index)
    with pytest.raises(ShardsError, match="index of policy 'demo' is damaged"):
        open_shards(out, "demo")
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), index)
    assert any("not the one that the manifest names" in problem.message for problem in verify(out, "demo").problems)
    (out / "shards/demo/manifest.json").unlink()
    assert not verify(out, "demo").is_sound


def test_decoding_finds_a_clip_that_is_not_what_its_row_says(out: Path) -> None:
    report = verify(out, "demo", lambda path: (decode(path)[0] + 1, decode(path)[1]))
    assert len(report.problems) == 24 and "decodes to" in report.problems[0].message
    report = verify(out, "demo", lambda path: ExportFailure("decode_error", "no"))
    assert len(report.problems) == 24 and "cannot be decoded: decode_error no" in report.problems[0].message


def test_a_damaged_tar_is_mended_by_exporting_what_was_lost(out: Path, clips: Any, finished: Path) -> None:
    row = _a_row(out)
    path = out / "shards/demo" / row["shard"]
    data = bytearray(path.read_bytes())
    data[row["mp4_offset"] + 9] ^= 255
    path.write_bytes(data)
    exporter = Exporter(clips)
    fewer = [
        sample
        for sample in samples_of(clips)
        if sample.bucket.name != row["bucket"] or sample.clip_id == row["clip_id"]
    ]
    write(out, "demo", "d3", fewer, exporter, QUICK, SMALL)
    assert exporter.asked == [row["clip_id"]] and verify(out, "demo", decode).is_sound


# -- order and size ----------------------------------------------------------------------------------------------------

ONE_BUCKET = SPEC.buckets()[0]
BARE = dict.fromkeys(
    ("start_pts", "end_pts", "time_base_num", "time_base_den", "frame_count", "crop_left_px", "crop_top_px", "crop_width_px",
     "crop_height_px", "width_px", "height_px"), 1,
)  # fmt: skip


def _bare(source: int, number: int) -> Sample:
    return Sample(BARE | {"clip_id": f"{source:04d}{number:04d}", "video_id": f"v{source}"}, ONE_BUCKET)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(0, 5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_is_a_permutation_of_the_set_whatever_the_order_it_came_in(
    counts: list[int], seed: int, shuffler: Any
) -> None:
    samples = [_bare(source, k) for source, count in enumerate(counts) for k in range(count)]
    ordered = spread_order(samples, seed)
    assert sorted(s.clip_id for s in ordered) == sorted(s.clip_id for s in samples)
    shuffler.shuffle(samples)
    assert spread_order(samples, seed) == ordered


@given(st.lists(st.integers(1, 12), min_size=2, max_size=12), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_between_two_clips_of_a_source_lies_one_of_every_source_with_as_many(counts: list[int], seed: int) -> None:
    ordered = spread_order([_bare(source, k) for source, count in enumerate(counts) for k in range(count)], seed)
    places: dict[str, list[int]] = {}
    for place, sample in enumerate(ordered):
        places.setdefault(sample.video_id, []).append(place)
    for video_id, own in places.items():
        for before, after in itertools.pairwise(own):
            between = {sample.video_id for sample in ordered[before:after]}
            assert {
                other for other, theirs in places.items() if len(theirs) >= len(own) or other == video_id
            } <= between


def test_the_seed_changes_the_order() -> None:
    samples = [_bare(source, k) for source in range(5) for k in range(8)]
    assert len({tuple(s.clip_id for s in spread_order(samples, seed)) for seed in range(4)}) == 4


def test_no_tar_is_larger_or_longer_than_its_targets_unless_one_sample_is(
    clips: Any, finished: Path, tmp_path: Path
) -> None:
    for limit in (60_000, 25_000, 1):
        shutil.copytree(finished, tmp_path / str(limit))
        write(tmp_path / str(limit), "demo", "d1", samples_of(clips), Exporter(clips), QUICK, Packing(limit, 5, 7))
        shards = open_shards(tmp_path / str(limit), "demo").manifest["shards"]
        assert sum(entry["samples"] for entry in shards) == 24
        for entry in shards:
            assert entry["samples"] <= 5 and (entry["size_bytes"] <= limit or entry["samples"] == 1)
            path = tmp_path / str(limit) / "shards/demo" / entry["shard"]
            assert path.stat().st_size == entry["size_bytes"]
        if limit == 1:
            assert len(shards) == 24


def test_an_empty_selection_is_an_empty_but_finished_set(out: Path, clips: Any) -> None:
    write(out, "demo", "d0", [], Exporter(clips), QUICK, SMALL)
    assert open_shards(out, "demo").index.num_rows == 0 and verify(out, "demo").is_sound
    assert not list(out.rglob("*.tar")) and stats(out, "demo") == []
    assert [path.name for path in (out / "shards/demo").iterdir() if path.is_dir()] == []
