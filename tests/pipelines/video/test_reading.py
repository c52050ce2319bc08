"""Opening, frames, seeking, identity of files."""

import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.video import files, opening, wire
from pipelines.video.files import FileFacts, check_unchanged, identify
from pipelines.video.reading import MediaError, Reason, frames, open_video

ROOT = Path(__file__).parents[3]
SAMPLES = ["a.mp4", "b.mp4", "b.avi", "bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "world.mp4"]


def all_pts(path: Path, threads: int = 1) -> list[int]:
    with open_video(path, threads) as video:
        return [int(frame.pts or 0) for frame in frames(video)]


@pytest.mark.parametrize("name", SAMPLES)
def test_frames_are_the_ones_that_plain_pyav_decodes_whatever_the_threads(name: str, samples: Path) -> None:
    with av.open(str(samples / name)) as plain:
        expected = [frame.pts for frame in plain.decode(video=0)]
    assert all_pts(samples / name, 1) == expected == all_pts(samples / name, 3)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_seek_yields_the_very_frame_that_was_asked_for(name: str, samples: Path) -> None:
    path = samples / name
    with open_video(path) as video:
        whole = [(frame.pts, bytes(frame.planes[0])) for frame in frames(video)]
    with open_video(path, threads=2) as video:
        for index in (len(whole) // 2, 1, 0, len(whole) - 1, len(whole) // 3):
            found = [
                (frame.pts, bytes(frame.planes[0]))
                for frame, _ in zip(frames(video, whole[index][0]), range(3), strict=False)
            ]
            assert found == whole[index : index + 3]


def test_a_second_call_goes_on_where_the_first_stopped(samples: Path) -> None:
    with open_video(samples / "bikes.mp4") as video:
        first = [frame.pts for frame in islice(frames(video), 10)]
        rest = [frame.pts for frame in frames(video)]
    assert sorted({*first, *rest}) == all_pts(samples / "bikes.mp4")
    assert rest[0] > first[-1]


def test_geometry_is_that_of_the_display(samples: Path) -> None:
    with open_video(samples / "carphone_pristine.mp4") as video:
        assert (video.sar, video.stored_width_px, video.width_px, video.height_px) == (
            Fraction(128, 117),
            176,
            193,
            144,
        )
        assert video.time_base == Fraction(1, 30000)


def test_leaving_the_loop_early_never_hangs(samples: Path) -> None:
    """Frame threads, loop left after one frame, sixty times over: facts/curation-systems.md 4.1. A hang meets the limit."""
    script = f"""
        from pipelines.video.reading import frames, open_video
        for round in range(20):
            for name in ("a.mp4", "bikes.mp4", "bigbuckbunny.mp4"):
                with open_video({str(samples)!r} + "/" + name, threads=8) as video:
                    for frame in frames(video):
                        if round % 2 or frame.pts > 3 * 512:
                            break
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_ffmpeg_prints_nothing(samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spoiled = bytearray((samples / "bikes.mp4").read_bytes())
    spoiled[20_000:300_000] = bytes(280_000)
    (tmp_path / "spoiled.mp4").write_bytes(spoiled)
    (tmp_path / "cut.mp4").write_bytes(spoiled[:100_000])
    for name in ("spoiled.mp4", "cut.mp4"):
        with pytest.raises(MediaError) as error:
            all_pts(tmp_path / name, threads=2)
        assert error.value.reason in (Reason.DECODE_ERROR, Reason.TRUNCATED)
    assert capfd.readouterr() == ("", "")


def test_the_same_failure_says_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("ffconcat version 1.0\nfile y.mp4\n")
    said = set()
    for _ in range(3):
        with pytest.raises(MediaError) as error, open_video(tmp_path / "x.mp4"):
            pass
        said.add((error.value.reason, error.value.message))
    assert len(said) == 1
    assert said.pop()[0] == Reason.FORBIDDEN_FORMAT


def test_every_reason_has_a_sentence_and_says_whether_to_try_again() -> None:
    assert all(len(reason.sentence) > 10 for reason in Reason)
    assert Reason.TIMEOUT.is_retryable
    assert not Reason.TRUNCATED.is_retryable
    assert Reason("too_large") is Reason.TOO_LARGE
    assert str(MediaError(Reason.EMPTY)) == Reason.EMPTY.sentence


def test_identity_is_the_bytes_and_nothing_but_the_bytes(samples: Path, tmp_path: Path) -> None:
    original = identify(samples / "b.mp4")
    copy = tmp_path / "another name.mov"
    copy.write_bytes((samples / "b.mp4").read_bytes())
    assert identify(copy).video_id == original.video_id
    assert len(original.video_id) == 32
    assert original.size_bytes == copy.stat().st_size
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert identify(copy).video_id != original.video_id


def test_a_file_that_grows_while_it_is_hashed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "growing.mp4"
    path.write_bytes(b"x" * 3_000_000)
    read = os.read

    def read_while_another_writes(descriptor: int, length: int) -> bytes:
        with path.open("ab") as writer:
            writer.write(b"y")
        return read(descriptor, length)

    monkeypatch.setattr(files.os, "read", read_while_another_writes)
    with pytest.raises(MediaError) as error:
        identify(path)
    assert error.value.reason == Reason.CHANGED_WHILE_READING
    assert error.value.reason.is_retryable


def test_a_changed_or_replaced_file_is_noticed_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"first")
    facts = identify(path)
    check_unchanged(path, facts)
    (tmp_path / "y").write_bytes(b"other")
    os.utime(tmp_path / "y", ns=(facts.mtime_ns, facts.mtime_ns))
    (tmp_path / "y").rename(path)
    with pytest.raises(MediaError) as error:
        check_unchanged(path, facts)
    assert error.value.reason == Reason.CHANGED_WHILE_READING
    path.unlink()
    with pytest.raises(MediaError) as error:
        check_unchanged(path, FileFacts("0" * 32, 5, 0, 0))
    assert error.value.reason == Reason.MISSING


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), st.binary(max_size=300), st.integers(1, 40))
def test_messages_survive_any_chopping(header: dict[str, object], body: bytes, step: int) -> None:
    data = wire.encode(header, body) * 2
    buffer = bytearray()
    found = []
    for start in range(0, len(data), step):
        buffer += data[start : start + step]
        while message := wire.decode(buffer, 1000):
            found.append(message)
    assert found == [(header, body)] * 2
    assert not buffer


def test_the_limits_are_stated_in_the_open() -> None:
    assert opening.MAX_SIDE_PX == 16384
    assert "concat" not in opening.FORMATS
    assert "hls" not in opening.FORMATS
