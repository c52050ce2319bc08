"""Every kind of odd and broken file: identified, probed in the sandbox, and decoded to its end.

The whole `curate` over all of them in one folder is `test_curate_bad_media.py`'s affair; the makers are in `bad_media.py`.
"""

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.video.files import identify
from pipelines.video.reading import MediaError, Reason, frames, open_video
from pipelines.video.sandbox import Limits, Reply, Sandbox
from tests.faults.bad_media import CASES, CONCAT, DASH, PLAYLIST, BadMedia
from tests.faults.media_makers import data_elsewhere, encode, patched


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(Limits(stall_s=20)) as sandbox:
        yield sandbox


def probe(box: Sandbox, path: Path) -> Reply:
    return box.call("probe", {"path": str(path), "video_id": "0" * 32})


def outcome(box: Sandbox, path: Path) -> tuple[str, Reason | None, dict[str, object], list[int]]:
    """The stage that failed (or 'done'), the reason, the row of the probe, and the PTS of the frames."""
    try:
        identify(path)
    except MediaError as error:
        return "ingest", error.reason, {}, []
    reply = probe(box, path)
    if not reply.is_ok:
        return "probe", reply.reason, {}, []
    row = reply.tables["videos"].to_pylist()[0]
    try:
        with open_video(path) as video:
            return "done", None, row, [int(frame.pts or 0) for frame in frames(video)]
    except MediaError as error:
        return "scan", error.reason, row, []


def test_there_are_more_than_thirty_kinds_and_each_has_its_own_name() -> None:
    assert len(CASES) > 60
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.reason for case in CASES} - {None} <= {str(reason) for reason in Reason}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_ends_as_it_must(case: BadMedia, box: Sandbox, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    stage, reason, row, pts = outcome(box, path)
    assert (reason, stage) == (case.reason, case.stage if case.reason else "done")
    for column, expected in case.facts.items():
        assert row[column] == (pytest.approx(expected) if isinstance(expected, float) else expected), column
    if pts:
        assert row["start_pts"] == pts[0]
        assert pts[-1] < int(str(row["end_pts"]))
        assert len(pts) <= int(str(row["packet_count"]))


def test_one_child_goes_through_all_of_them_and_none_stops_the_next(tmp_path: Path) -> None:
    with Sandbox(Limits(calls_per_child=1000)) as box:
        probe(box, tmp_path)
        pid = box.child_pid
        for case in CASES:
            place = tmp_path / case.name
            place.mkdir()
            reply = probe(box, case.make(place))
            assert reply.is_ok or reply.message
        assert box.child_pid == pid


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".flv"])
def test_any_damage_ends_in_facts_or_a_reason_and_never_in_our_own_error(
    suffix: str, box: Sandbox, tmp_path: Path
) -> None:
    """Sixty seeded ways for each container: cut anywhere, bytes overwritten, a part zeroed, a part taken out."""
    sound = encode(tmp_path / f"sound{suffix}", codec="flv" if suffix == ".flv" else "libx264").read_bytes()
    random = np.random.default_rng(7)
    for index in range(60):
        data = bytearray(sound)
        begin, end = sorted(random.integers(0, len(data), 2).tolist())
        if index % 4 == 0:
            del data[begin:]
        elif index % 4 == 1:
            for place in random.integers(0, len(data), 1 + index // 3):
                data[place] = int(random.integers(256))
        elif index % 4 == 2:
            data[begin:end] = bytes(end - begin)
        else:
            del data[begin:end]
        (tmp_path / "damaged").write_bytes(data)
        reply = probe(box, tmp_path / "damaged")
        assert reply.is_ok or reply.reason not in (Reason.INTERNAL_ERROR, Reason.CRASHED, Reason.TIMEOUT), reply.message


@pytest.mark.parametrize("script", [PLAYLIST, CONCAT, DASH], ids=["playlist", "concat", "dash"])
@pytest.mark.parametrize("name", ["script.mp4", "script.m3u8", "script.ffconcat", "script.mpd"])
def test_a_script_reads_neither_the_network_nor_another_file(
    script: str, name: str, box: Sandbox, tmp_path: Path
) -> None:
    """The file named is a pipe that nobody writes: whoever opens it hangs, and would end as `timeout`."""
    os.mkfifo(tmp_path / "secret.ts")
    with listener() as (url, visits):
        for target in ("secret.ts", f"file:{tmp_path}/secret.ts", str(tmp_path / "secret.ts"), url):
            (tmp_path / name).write_text(script.format(target=target))
            assert probe(box, tmp_path / name).reason in (Reason.FORBIDDEN_FORMAT, Reason.NOT_MEDIA)
    assert not visits


def test_an_mp4_whose_samples_lie_in_another_file_reads_nothing_of_it(box: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    path = patched(encode(tmp_path / "x.mp4"), lambda data: data_elsewhere(data, secret))
    shutil.copy(encode(tmp_path / "sound.mp4"), secret)
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as unguarded:
        assert next(unguarded.decode(video=0)).width == 96  # the trap works on an ordinary open
    secret.unlink()
    os.mkfifo(secret)
    assert probe(box, path).reason == Reason.NO_FRAMES


@contextmanager
def listener() -> Iterator[tuple[str, list[object]]]:
    """A web address on this machine, and the list of those who came."""
    visits: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                try:
                    visits.append(server.accept()[1])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/secret.ts", visits
        finally:
            stop.set()
            thread.join()


def test_a_file_without_permission_is_told_so() -> None:
    """As root, modes mean nothing: the test steps down to `nobody` while it looks."""
    folder = Path(tempfile.mkdtemp(prefix="reelmill-permission-"))
    try:
        folder.chmod(0o755)
        path = encode(folder / "x.mp4")
        path.chmod(0o644)
        with as_nobody():
            assert len(identify(path).video_id) == 32
        path.chmod(0o000)
        with as_nobody(), pytest.raises(MediaError) as error:
            identify(path)
        assert error.value.reason == Reason.PERMISSION_DENIED
        assert error.value.reason.is_retryable
    finally:
        shutil.rmtree(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_frame_larger_than_the_memory_limit_is_out_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 12_000, 12_000, "gray"
        stream.codec_context.time_base = Fraction(1, 25)
        frame = av.VideoFrame(12_000, 12_000, "gray")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with Sandbox(Limits(memory_bytes=420 << 20)) as box:
        assert probe(box, path).reason == Reason.OUT_OF_MEMORY
        assert probe(box, encode(tmp_path / "small.mp4")).is_ok
    with Sandbox() as box:
        assert probe(box, path).is_ok
