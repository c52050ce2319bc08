"""What goes wrong in the wild: a folder of odd files, Ctrl-C, a full disk, two runs at once, files that come and go."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.ingest import path_of
from tests.end_to_end.conftest import Command, shard_digests, tree
from tests.faults.bad_media import CASES, BadMedia

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def rows(out: Path, table: str) -> list[dict]:
    return [
        row for path in sorted((out / "tables" / table).rglob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def media_children() -> list[str]:
    """Command lines of living sandbox children."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "pipelines.video.child" in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def odd(
    tmp_path_factory: pytest.TempPathFactory, samples: Path, reelmill: Command
) -> tuple[Path, dict[Path, BadMedia], object]:
    """One run over every kind of odd file, each in a folder of its own, and one good video among them."""
    folder = tmp_path_factory.mktemp("odd")
    made = {}
    for case in CASES:
        place = folder / "files" / case.name
        place.mkdir(parents=True)
        made[case.make(place)] = case
    shutil.copy(samples / "bigbuckbunny.mp4", folder / "files" / "good.mp4")
    # the cheap gates would turn these small files away before the scan opens them
    loose = [
        f"--set=gates.{gate}.enabled=false" for gate in ("source_duration", "width", "height", "fps", "progressive")
    ]
    ended = reelmill(
        "curate", *made, folder / "files" / "good.mp4", "--out", folder / "out", "--policy", "demo", *loose
    )
    return folder / "out", made, ended


def test_at_least_thirty_kinds_of_odd_files_are_tried() -> None:
    assert len({case.name for case in CASES}) >= 30


def test_every_odd_file_ends_in_the_state_that_it_must(odd: tuple[Path, dict[Path, BadMedia], object]) -> None:
    out, made, _ = odd
    inputs = {os.fsencode(path_of(row["uri"])): row for row in rows(out, "inputs")}
    reasons = {row["key"]: (row["stage"], row["reason"]) for row in rows(out, "failures")}
    wrong = []
    for path, case in made.items():
        row = inputs.get(os.fsencode(path))
        if row is None:
            assert path.is_dir(), path  # a folder is looked into; it is no input itself
            continue
        came = ("ingest", row["reason"]) if row["state"] == "failed" else reasons.get(row["video_id"])
        expected = (case.stage, case.reason) if case.reason else None
        if came != expected:
            wrong.append(f"{case.name}: expected {expected}, came {came}")
    assert not wrong, "\n".join(wrong)


def test_the_good_one_among_them_is_curated_all_the_same(odd: tuple[Path, dict[Path, BadMedia], object]) -> None:
    out, _, _ = odd
    index = pq.read_table(out / "shards/demo/index.parquet").to_pylist()
    good = next(row["video_id"] for row in rows(out, "inputs") if row["uri"].endswith("/good.mp4"))
    assert good in {row["video_id"] for row in index}


def test_the_exit_status_and_the_summary_tell_of_the_failures(odd: tuple[Path, dict[Path, BadMedia], object]) -> None:
    _, _made, ended = odd
    assert ended.status == 1
    assert "inputs failed" in ended.err
    for word in ("truncated", "no_video_stream", "not_media", "empty"):
        assert word in ended.out
    assert "Traceback" not in ended.err + ended.out


def test_a_share_of_failures_can_be_allowed(odd: tuple[Path, dict[Path, BadMedia], object], reelmill: Command) -> None:
    out, _, _ = odd
    assert reelmill("curate", "--out", out, "--policy", "demo", "--allow-failures", "0.95").status == 0


def test_the_report_of_them_is_a_page(odd: tuple[Path, dict[Path, BadMedia], object]) -> None:
    out, _, _ = odd
    page = (out / "report.html").read_text()
    assert "truncated" in page
    assert "<script>alert" not in page


def test_ctrl_c_ends_at_once_with_a_sentence_and_the_same_command_goes_on(
    reels: Path, curated: Path, reelmill: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "orchestration.cli", "curate", str(reels), "--out", str(out), "--policy", "demo"]
    # a shell that starts a job in the background ignores SIGINT for it; a person's terminal does not
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (out / "receipts").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "goes on from here" in err
    assert "Traceback" not in err
    assert not [line for line in media_children() if str(out) in line]
    assert reelmill("curate", reels, "--out", out, "--policy", "demo").status == 0
    assert shard_digests(out) == shard_digests(curated)


def test_a_full_disk_ends_with_a_sentence_and_more_room_lets_the_same_command_go_on(
    reels: Path, curated: Path, tmp_path: Path
) -> None:
    """A file system of 400 KiB, then the same one of 200 MiB. `unshare` gives the test a mount of its own."""
    out = tmp_path / "disk"
    out.mkdir()
    curate = f"{sys.executable} -m orchestration.cli curate '{reels}' --out '{out}/out' --policy demo"
    script = f"""
        mount -t tmpfs -o size=400k tmpfs '{out}' || exit 9
        {curate} 2>'{tmp_path}/err'; echo "status $?"
        find '{out}' -name '.tmp-*'
        mount -o remount,size=200m '{out}'
        {curate} >/dev/null; echo "status $?"
        cp -r '{out}/out/shards' '{tmp_path}/shards'
    """
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.splitlines()[-2:] == ["status 1", "status 0"], done.stdout + done.stderr
    err = (tmp_path / "err").read_text()
    assert "no room left" in err or "space" in err
    assert "Traceback" not in err
    assert shard_digests(tmp_path) == shard_digests(curated)


def test_a_second_run_on_the_same_output_is_told_to_wait(reels: Path, reelmill: Command, tmp_path: Path) -> None:
    from pipelines.store import open_store

    with open_store(tmp_path / "out").lock():
        ended = reelmill("curate", reels, "--out", tmp_path / "out", "--policy", "demo")
    assert ended.status == 1
    assert "another run" in ended.err


def test_a_file_that_was_gone_is_tried_again_when_asked(samples: Path, reelmill: Command, tmp_path: Path) -> None:
    source = tmp_path / "reels"
    source.mkdir()
    shutil.copy(samples / "carphone_pristine.mp4", source / "a.mp4")
    out = tmp_path / "out"
    (source / "b.mp4").symlink_to(samples / "bigbuckbunny.mp4")
    assert reelmill("curate", source, "--out", out, "--policy", "demo", "--set", "gates.width.min=4000").status == 0
    # measured so far: the probe alone, since no policy wanted a scan; now the file goes away
    (source / "b.mp4").unlink()
    gone = reelmill("curate", "--out", out, "--policy", "demo")
    assert gone.status == 1
    assert "missing" in gone.out
    (source / "b.mp4").symlink_to(samples / "bigbuckbunny.mp4")
    assert reelmill("curate", "--out", out, "--policy", "demo").status == 1
    assert reelmill("curate", "--out", out, "--policy", "demo", "--retry-failures").status == 0


def test_a_file_that_changed_since_it_was_hashed_is_told_so_and_read_anew(
    samples: Path, reelmill: Command, tmp_path: Path
) -> None:
    source = tmp_path / "reels"
    source.mkdir()
    out = tmp_path / "out"
    shutil.copy(samples / "carphone_pristine.mp4", source / "a.mp4")
    assert reelmill("curate", source, "--out", out, "--policy", "demo", "--set", "gates.width.min=4000").status == 0
    shutil.copy(samples / "bigbuckbunny.mp4", source / "a.mp4")
    stale = reelmill("curate", "--out", out, "--policy", "demo")
    assert "changed_while_reading" in stale.out
    assert reelmill("curate", source, "--out", out, "--policy", "demo").status == 0
    assert {row["video_id"] for row in rows(out, "inputs")} == {
        row["video_id"] for row in pq.read_table(out / "shards/demo/index.parquet").to_pylist()
    }


def test_a_run_without_any_usable_video_still_ends_with_a_report(reelmill: Command, tmp_path: Path) -> None:
    (tmp_path / "reels").mkdir()
    (tmp_path / "reels" / "x.mp4").write_text("no video")
    ended = reelmill("curate", tmp_path / "reels", "--out", tmp_path / "out", "--policy", "demo")
    assert ended.status == 1
    assert (tmp_path / "out/report.html").exists()
    assert "Traceback" not in ended.err
    assert not [path for path in tree(tmp_path / "out") if ".tmp-" in path]
