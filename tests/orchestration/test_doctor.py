"""The doctor's lines say what is true of this machine, and the right one changes when something is taken away."""

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from orchestration.doctor import Check, exit_code, machine, render, run_checks, software
from pipelines import weights
from pipelines.video import selfcheck

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checks(samples: Path) -> list[Check]:
    return run_checks()


def named(checks: list[Check], name: str) -> Check:
    (check,) = [check for check in checks if check.name == name]
    return check


def test_this_machine_can_run_the_main_job(checks: list[Check]) -> None:
    failed = [check for check in checks if check.status == "fail"]
    assert not failed
    assert exit_code(checks) == 0
    for name in ("python", "video", "sandbox", "cv2", "output folder", "cache folder", "packages", "extra curate"):
        assert named(checks, name).status == "ok", named(checks, name)
    assert named(checks, "sample videos").found.startswith("9 of 9 here")
    assert named(checks, "dagster").found.endswith("telemetry off")


def test_every_codec_makes_the_round_trip(checks: list[Check]) -> None:
    found = named(checks, "encode and decode").found
    assert {"h264", "hevc", "vp9", "av1", "aac"} <= set(found.split(", "))


def test_versions_are_those_installed(checks: list[Check]) -> None:
    code = "import av, cv2, json; print(json.dumps([av.__version__, cv2.__version__]))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    for version in json.loads(said):
        assert version in named(checks, "video").found


def test_every_line_that_is_not_ok_says_what_to_do(checks: list[Check]) -> None:
    assert all(check.mend for check in checks if check.status != "ok")
    with pytest.raises(AssertionError):
        Check("x", "fail", "gone", "all")


def test_the_table_shows_lines_and_mends() -> None:
    out = io.StringIO()
    lines = [Check("good", "ok", "1 [bold]", "a"), Check("bad", "fail", "none", "b", "do '.[this]'")]
    render(lines, Console(file=out, width=100))
    text = out.getvalue()
    assert "1 [bold]" in text
    assert "fail bad: do '.[this]'" in text
    assert exit_code(lines) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_an_impossible_cache_fails_alone_and_asking_imports_nothing_heavy() -> None:
    code = (
        "import sys; from orchestration import doctor; checks = doctor.run_checks();"
        "print([check.name for check in checks if check.status == 'fail'], doctor.exit_code(checks),"
        "[name for name in ('av', 'cv2', 'torch', 'dagster', 'scenedetect') if name in sys.modules])"
    )
    env = {**os.environ, "REELMILL_CACHE": "/proc/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    assert done.stdout.strip() == "['cache folder'] 1 []"


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (check,) = machine.check_folder("output folder", Path("out"), "clips")
    assert check.status == "ok"
    assert check.found.startswith(f"out (will be made in {tmp_path})")
    assert not list(tmp_path.iterdir())


# --- with something taken away


def test_without_java_only_the_line_of_java_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    (check,) = machine.check_java()
    assert (check.status, check.found) == ("warn", "none")
    assert "install Java 17" in check.mend
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    (check,) = machine.check_java()
    assert (check.status, "No such file" in check.found) == ("warn", True)


@pytest.mark.parametrize(
    ("version", "status"), [("1.8.0_352", "warn"), ("11.0.2", "warn"), ("17.0.15", "ok"), ("25", "ok")]
)
def test_a_java_of_another_version_is_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, status: str
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    (check,) = machine.check_java()
    assert check.status == status, check


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_a_folder_that_cannot_be_written_fails_and_says_so() -> None:
    (check,) = machine.check_folder("output folder", Path("/proc/nowhere/out"), "clips")
    assert check.status == "fail"
    assert "will be made in /proc" in check.found
    assert "--out" in check.mend


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    (check,) = machine.check_folder("cache folder", tmp_path, "weights")
    tmp_path.chmod(0o755)
    assert check.status == "fail"
    assert "REELMILL_CACHE" in check.mend


def test_an_empty_cache_and_a_damaged_file_are_told_apart(tmp_path: Path) -> None:
    videos, models = software.check_weights(tmp_path)
    assert (videos.status, videos.mend) == ("warn", "reelmill weights pull samples")
    assert videos.found == "0 of 9 here, 0 MB"
    assert models.mend.startswith("reelmill weights pull sscd ")
    entry = weights.load_lock().entries["sample-bikes"]
    folder = tmp_path / "weights" / entry.key
    folder.mkdir(parents=True)
    (folder / "bikes.mp4").write_bytes(b"half")
    videos, _ = software.check_weights(tmp_path)
    assert videos.found.endswith("damaged: sample-bikes")
    assert videos.mend == "reelmill weights pull sample-bikes"


def test_a_lock_file_that_cannot_be_read_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELMILL_WEIGHTS_LOCK", "/nowhere.json")
    (check,) = software.check_weights(None)
    assert (check.status, "/nowhere.json" in check.found) == ("fail", True)


def test_a_port_in_use_warns() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (check,) = machine.check_port(port)
    assert check.status == "warn"
    assert f"--port {port + 1}" in check.mend
    assert next(machine.check_port(port)).status == "ok"


def test_a_dagster_home_of_ones_own_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert next(software.check_dagster()).status == "warn"
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: true}")
    assert next(software.check_dagster()).found.endswith("telemetry ON")
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    assert next(software.check_dagster()).status == "ok"


def fake_packages(folder: Path, monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Metadata of packages, found before those that are installed."""
    for name, version in versions.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(f"{name}_is_not_here\n")
    monkeypatch.syspath_prepend(str(folder))


def test_two_owners_of_cv2_of_different_versions_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_packages(tmp_path, monkeypatch, opencv_python_headless="4.1.0")
    (check,) = software.check_opencv()
    assert check.status == "fail"
    assert "the one installed last wins" in check.found
    assert check.mend.startswith("pip uninstall opencv-python opencv-python-headless")


def test_packages_outside_the_tested_range_or_broken_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_packages(tmp_path, monkeypatch, av="12.0.0", scenedetect="0.7.1", faiss_cpu="99")
    lines = {check.name: check for check in software.check_extras()}
    assert lines["extra curate"].status == "fail"
    assert "av 12.0.0 is outside the tested range" in lines["extra curate"].found
    assert "scenedetect 0.7.1 cannot be imported" in lines["extra curate"].found
    assert lines["extra dedup"].status == "warn"
    assert "faiss-cpu 99 is outside" in lines["extra dedup"].found


def test_without_torch_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (check,) = machine.check_gpus()
    assert (check.status, check.found) == ("warn", "torch is absent")


def test_a_torch_that_breaks_on_import_is_one_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is gone')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (check,) = machine.check_gpus()
    assert check.status == "warn"
    assert "cannot be asked" in check.found


def test_what_torch_says_of_gpus_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module called torch that claims a GPU: there is none where the tests run."""
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as N\n"
        "cuda = N(get_device_properties=lambda i: N(name='H200', total_memory=139 << 30), device_count=lambda: 2)\n"
        "version, __version__ = N(cuda='13.0'), '2.13.0'\n"
        "backends = N(mps=N(is_available=lambda: False))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (check,) = machine.check_gpus()
    assert (check.status, check.found) == ("ok", "H200, 139 GiB; H200, 139 GiB; torch 2.13.0")


def test_media_libraries_that_do_not_load_fail_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_CHILD_TASKS", {"codecs": "no_such_media_library:codecs"})
    (check,) = software.check_video()
    assert check.status == "fail"
    assert "no_such_media_library" in check.found


def test_a_codec_that_cannot_be_written_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(selfcheck.VIDEO_CODECS, "hevc", ("no_such_encoder", "mp4"))
    facts, _ = selfcheck.codecs({}, lambda: None)
    assert "no_such_encoder" in facts["round_trips"]["hevc"]
    assert {trip for codec, trip in facts["round_trips"].items() if codec != "hevc"} == {"ok"}
