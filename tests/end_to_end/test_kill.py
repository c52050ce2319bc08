"""kill -9 at random moments, twenty times in a row: nothing is lost, nothing finished is done twice, nothing strays."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command, shard_digests, tree

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]

KILLS = 20


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """What is finished so far, with the file's number and time: it must never be written again."""
    paths = [path for pattern in ("receipts/**/*.json", "exports/**/*.json") for path in out.glob(pattern)]
    return {
        str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in paths
        if ".tmp-" not in path.name
    }


def test_twenty_kills_and_a_run_to_the_end_equal_an_unbroken_run(
    curated: Path, reels: Path, reelmill: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "orchestration.cli", "curate", str(reels), "--out", str(out), "--policy", "demo"]
    draw = random.Random(7)
    done: dict[str, tuple[int, int]] = {}
    kills = 0
    while kills < KILLS:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(draw.uniform(0.3, 4.0))
        if process.poll() is None:
            process.kill()
            process.wait()
            kills += 1
            now = finished(out)
            assert {path: now[path] for path in done if path in now} == {
                path: done[path] for path in done if path in now
            }
            done |= now
        else:  # it came to its end first: begin again, so that there is something to kill
            assert process.returncode == 0
            assert shard_digests(out) == shard_digests(curated)
            shutil.rmtree(out)
            done = {}
    ended = reelmill("curate", reels, "--out", out, "--policy", "demo")
    assert ended.status == 0, ended.err
    assert shard_digests(out) == shard_digests(curated)
    assert tree(out) == tree(curated)
    now = finished(out)
    assert {path: now.get(path) for path in done if path.startswith("receipts")} == {
        path: stamp for path, stamp in done.items() if path.startswith("receipts")
    }
