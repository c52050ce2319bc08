"""Finding files and telling them apart: every path has one row, whatever it is called or turns out to be."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingest import find, ingest, path_of
from pipelines.tables import INPUTS

NOTHING = INPUTS.schema.empty_table()


def rows(folder: Path, known: pa.Table = NOTHING, elsewhere: frozenset[str] = frozenset()) -> dict[str, dict]:
    table = ingest(find([folder]), "monday", known, elsewhere, 2, lambda: None)
    return {path_of(row["uri"]).name: row for row in table.to_pylist()}


@given(
    st.binary(min_size=1, max_size=40).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
    )
)
def test_a_uri_leads_back_to_its_path_byte_for_byte(name: bytes) -> None:
    path = Path(os.fsdecode(b"/reels/" + name))
    uri = path.as_uri()
    assert uri.isascii()
    assert os.fsencode(path_of(uri)) == b"/reels/" + name


def test_names_with_anything_in_them_are_found_and_keep_apart(tmp_path: Path) -> None:
    names = [
        "a b.mp4",
        "new\nline.mp4",
        "quote'\".mp4",
        "ünï ☃.mp4",
        "%41.mp4",
        "-rf.mp4",
        os.fsdecode(b"\xff\xfe.mp4"),
    ]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([number + 1]))
    found = rows(tmp_path)
    assert set(found) == set(names)
    assert len({row["video_id"] for row in found.values()}) == len(names)


def test_the_same_bytes_twice_are_one_video_and_one_copy(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"reel")
    (tmp_path / "a.mp4").write_bytes(b"reel")
    assert {name: row["state"] for name, row in rows(tmp_path).items()} == {"a.mp4": "video", "b.mp4": "copy"}


def test_bytes_that_another_batch_brought_are_a_copy(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"reel")
    video_id = rows(tmp_path)["a.mp4"]["video_id"]
    assert rows(tmp_path, elsewhere=frozenset([video_id]))["a.mp4"]["state"] == "copy"


def test_what_cannot_be_read_is_a_row_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "good.mp4").write_bytes(b"reel")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "dead.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = rows(tmp_path)
    assert {name: row["reason"] for name, row in found.items()} == {
        "good.mp4": None,
        "empty.mp4": "empty",
        "dead.mp4": "missing",
        "loop.mp4": "link_loop",
        "pipe.mp4": "not_a_file",
    }
    assert all(row["message"] for name, row in found.items() if name != "good.mp4")


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.mp4").write_bytes(b"reel")
    (inner / "up").symlink_to(tmp_path)
    assert set(rows(tmp_path)) == {"a.mp4"}


def test_a_folder_named_like_a_video_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "season.mp4").mkdir()
    (tmp_path / "season.mp4" / "one.mp4").write_bytes(b"reel")
    assert set(rows(tmp_path)) == {"one.mp4"}


def test_hidden_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.mp4").write_bytes(b"reel")
    assert set(rows(tmp_path)) == {"a.mp4"}


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"reel")
    first = ingest(find([tmp_path]), "monday", NOTHING, frozenset(), 1, lambda: None)
    claimed = first.set_column(1, "video_id", pa.array(["f" * 32]))
    assert rows(tmp_path, known=claimed)["a.mp4"]["video_id"] == "f" * 32
    path.write_bytes(b"another reel")
    assert rows(tmp_path, known=claimed)["a.mp4"]["video_id"] != "f" * 32


def test_inputs_of_earlier_runs_stay(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.mp4").write_bytes(name.encode())
    first = ingest(find([tmp_path / "one"]), "monday", NOTHING, frozenset(), 1, lambda: None)
    assert set(rows(tmp_path / "two", known=first)) == {"one.mp4", "two.mp4"}


def test_a_source_that_is_not_there_or_holds_nothing_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        find([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no file under"):
        find([tmp_path])
