"""The promises of the store: a part counts when its receipt is there, and appears once, whole, under the same name."""

import errno
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.store import OutputBusy, OutputFull, Store, digest, fingerprint, open_store, part_name
from pipelines.tables import INPUTS, SCANS, SHOTS, conform, from_rows


def scans(*ids: str) -> pa.Table:
    return from_rows([{"video_id": key, "status": "ok", "frame_count": 3} for key in ids], SCANS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "out")


@given(st.lists(st.text("abcdef0123456789", min_size=4, max_size=8), min_size=1, unique=True), st.randoms())
def test_a_part_is_named_by_its_keys_whatever_their_order(keys: list[str], random) -> None:
    shuffled = keys[:]
    random.shuffle(shuffled)
    assert part_name(keys) == part_name(shuffled)


def test_a_fingerprint_changes_with_each_thing_that_could_change_a_result() -> None:
    base = fingerprint("scan", 1, {"a": 1})
    others = [
        fingerprint("probe", 1, {"a": 1}),
        fingerprint("scan", 2, {"a": 1}),
        fingerprint("scan", 1, {"a": 2}),
        fingerprint("scan", 1, {"a": 1}, {"net": "00"}),
        fingerprint("scan", 1, {"a": 1}, upstream=[base]),
    ]
    assert len({base, *others}) == 6
    assert base == fingerprint("scan", 1, {"a": 1})


def test_equal_values_have_equal_digests_whatever_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})


def test_only_keys_without_a_receipt_are_missing(store: Store) -> None:
    store.commit("scan", "f0", ["a", "b"], {"scans": scans("a", "b")}, 0.1)
    assert store.missing("scan", "f0", ["c", "a"]) == ["c"]
    assert store.missing("scan", "f1", ["a"]) == ["a"]


def test_a_part_without_its_receipt_is_invisible_and_the_next_run_removes_it(store: Store) -> None:
    receipt = store.commit("scan", "f0", ["a"], {"scans": scans("a")}, 0.1)
    store.fs.delete_file(f"receipts/scan/f0/{receipt.part}.json")
    assert store.read("scan", "f0", SCANS).num_rows == 0
    assert store.clean() == [f"tables/scans/f0/{receipt.part}.parquet"]
    assert store.files("tables") == []


def test_cleaning_spares_committed_parts_and_snapshots(store: Store) -> None:
    store.commit("scan", "f0", ["a"], {"scans": scans("a")}, 0.1)
    store.replace(INPUTS, "default", from_rows([{"uri": "file:///x", "state": "video"}], INPUTS))
    assert store.clean() == []


def test_temporary_files_of_a_killed_run_are_removed_wherever_they_are(store: Store) -> None:
    assert store.local_root
    for folder in ("tables/scans/f0", "shards/demo/16x9", "receipts/scan/f0"):
        path = store.local_root / folder / ".tmp-0123"
        path.parent.mkdir(parents=True)
        path.write_text("half")
    assert len(store.clean()) == 3
    assert store.files(".") == []


def test_committing_twice_gives_the_same_bytes_and_no_second_part(store: Store) -> None:
    first = store.commit("scan", "f0", ["b", "a"], {"scans": scans("b", "a")}, 0.1)
    path = f"tables/scans/f0/{first.part}.parquet"
    before = store.read_bytes(path)
    second = store.commit("scan", "f0", ["a", "b"], {"scans": scans("a", "b")}, 0.1)
    assert (first.part, before) == (second.part, store.read_bytes(path))
    assert len(store.receipts("scan", "f0")) == 1


def test_rows_are_read_in_the_order_of_their_key(store: Store) -> None:
    store.commit("scan", "f0", ["z"], {"scans": scans("z")}, 0.1)
    store.commit("scan", "f0", ["b", "a"], {"scans": scans("b", "a")}, 0.1)
    assert store.read("scan", "f0", SCANS, ["video_id"]).column("video_id").to_pylist() == ["a", "b", "z"]


def test_a_forgotten_key_takes_its_part_along_and_is_missing_again(store: Store) -> None:
    store.commit("scan", "f0", ["a", "b"], {"scans": scans("a", "b")}, 0.1)
    assert store.forget("scan", "f0", ["a"]) == ["a", "b"]
    assert store.missing("scan", "f0", ["a", "b"]) == ["a", "b"]
    assert store.files("tables") == []


def test_a_snapshot_is_replaced_whole(store: Store) -> None:
    store.replace(INPUTS, "monday", from_rows([{"uri": "file:///x"}, {"uri": "file:///y"}], INPUTS))
    store.replace(INPUTS, "monday", from_rows([{"uri": "file:///z"}], INPUTS))
    assert store.snapshot(INPUTS, "monday").column("uri").to_pylist() == ["file:///z"]
    assert store.snapshots(INPUTS) == ["monday"]


def test_a_full_disk_leaves_nothing_behind_and_says_what_to_do(store: Store) -> None:
    def write(stream) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputFull, match="free some space"):
        store.publish("tables/scans/f0/part-x.parquet", write)
    assert store.files(".") == []


def test_two_runs_cannot_hold_one_output(store: Store) -> None:
    with store.lock(), pytest.raises(OutputBusy, match="another run"), open_store(store.root).lock():
        pass


def test_an_fsspec_file_system_holds_the_same_tables() -> None:
    store = open_store("memory://reelmill-test")
    store.commit("scan", "f0", ["a"], {"scans": scans("a")}, 0.1)
    assert store.read("scan", "f0", SCANS, ["video_id"]).to_pylist() == [{"video_id": "a"}]
    assert store.missing("scan", "f0", ["a", "b"]) == ["b"]


def test_an_output_that_is_a_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="give another --out"):
        open_store(tmp_path / "out")


def test_a_receipt_is_plain_json_that_says_what_was_answered(store: Store) -> None:
    receipt = store.commit("scan", "f0", ["a"], {"scans": scans("a")}, 0.25)
    record = json.loads(store.read_bytes(f"receipts/scan/f0/{receipt.part}.json"))
    assert record["keys"] == ["a"]
    assert record["rows"] == {"scans": 1}


def test_swapped_columns_are_put_back_by_name() -> None:
    rows = scans("a").select(list(reversed(SCANS.schema.names)))
    assert conform(rows, SCANS).schema == SCANS.schema


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pa.table({"video_id": ["a"], "colour": [1]}), "no column"),
        (pa.table({"status": ["ok"]}), "needs its key column"),
        (pa.table({"video_id": [None]}, schema=pa.schema([("video_id", pa.string())])), "nulls"),
        (pa.table({"video_id": ["a"], "frame_count": ["many"]}), "frame_count"),
    ],
)
def test_a_batch_that_does_not_fit_its_table_is_refused_by_name(rows: pa.Table, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conform(rows, SCANS)


def test_an_absent_measurement_is_null_and_never_a_low_score() -> None:
    rows = conform(pa.table({"video_id": ["a"], "index": [0]}), SHOTS)
    assert rows.column("transition_score").to_pylist() == [None]
