"""Checks of what is installed: media libraries, the sandbox, packages, weights, Dagster's settings.

Media libraries are tried in the sandbox child; packages are looked up, not imported.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import yaml

from orchestration.doctor.check import Check, Status
from pipelines import weights
from pipelines.video.reasons import Reason
from pipelines.video.sandbox import Limits, Sandbox

PROJECT = "reelmill"
ROOT = Path(__file__).resolve().parents[2]
_CHILD_TASKS = {name: f"pipelines.video.selfcheck:{name}" for name in ("codecs", "hoard", "hang")}
# Without these nothing can be curated; the rest cost a choice of codec or a kind of input.
_NEEDED_CODECS = {"h264", "aac"}
_EXTRAS = {
    "": "everything",
    "curate": "reading, cutting and exporting video",
    "orchestrate": "`reelmill ui`: assets and runs in the browser",
    "train": "training the TAE and the DiT",
    "text-encoders": "text embeddings for training",
    "spark": "--engine spark",
    "beam": "--engine beam",
    "ocr": "the text gate",
    "semantic": "aesthetics, concepts and embeddings",
    "dedup": "near-duplicates of large collections",
    "caption": "captions; its install compiles for about 6 minutes and needs cmake and a C++ compiler",
}
_NEEDED_EXTRAS = {"", "curate"}
_OPENCVS = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")


def check_video() -> Iterator[Check]:
    """Every codec encodes and decodes three frames in a sandbox child."""
    needed_for = "reading and writing video"
    mend = "pip install --force-reinstall av opencv-python, with the project's constraints.txt"
    with Sandbox(tasks=_CHILD_TASKS) as sandbox:
        reply = sandbox.call("codecs", {})
    if not reply.is_ok:
        yield Check("video", "fail", reply.message.strip().splitlines()[-1], needed_for, mend)
        return
    facts = reply.facts
    found = f"PyAV {facts['pyav']}, FFmpeg {facts['ffmpeg']}, OpenCV {facts['cv2']}"
    yield Check("video", "ok", found, needed_for)
    trips: dict[str, str] = facts["round_trips"]
    broken = {codec: trip for codec, trip in trips.items() if trip != "ok"}
    status: Status = "fail" if _NEEDED_CODECS & set(broken) else "warn" if broken else "ok"
    found = ", ".join([*(codec for codec in trips if codec not in broken), *broken.values()])
    yield Check("encode and decode", status, found, "inputs and export in these codecs", mend if broken else "")
    absent = [name for name, is_there in facts["decoders"].items() if not is_there]
    there = [name for name in facts["decoders"] if name not in absent]
    found = ", ".join(there) + (f"; not {', '.join(absent)}" if absent else "")
    yield Check("decode only", "warn" if absent else "ok", found, "inputs in these codecs", mend if absent else "")


def check_sandbox() -> Iterator[Check]:
    """A child that takes too much memory and one that hangs must both end with their reason code."""
    with Sandbox(Limits(memory_bytes=2 << 30, stall_s=2.0), _CHILD_TASKS) as sandbox:
        start_s = time.monotonic()
        hoard = sandbox.call("hoard", {"bytes": 4 << 30})
        took_s = time.monotonic() - start_s
        hang = sandbox.call("hang", {"seconds": 60})
    held = [hoard.reason == Reason.OUT_OF_MEMORY, hang.reason == Reason.TIMEOUT]
    found = f"memory limit {'held' if held[0] else 'NOT held'}, time limit {'held' if held[1] else 'NOT held'}"
    mend = (
        "only Linux holds the memory limit (RLIMIT_AS): elsewhere, curate only video that you trust, or use a container"
    )
    status: Status = "ok" if all(held) else "warn" if held[1] and sys.platform != "linux" else "fail"
    yield Check(
        "sandbox", status, f"{found}; a child starts in {took_s:.1f} s", "untrusted video", "" if all(held) else mend
    )


def check_opencv() -> Iterator[Check]:
    """Several packages own the module cv2; the one installed last wins, which is harmless only at one version."""
    owners = {name: version for name in _OPENCVS if (version := _version(name))}
    found = ", ".join(f"{name} {version}" for name, version in owners.items()) or "none"
    if not owners:
        yield Check("cv2", "fail", found, "the scan", _install("curate"))
    elif len(set(owners.values())) > 1:
        mend = f"pip uninstall {' '.join(owners)}, then {_install('curate')}"
        yield Check("cv2", "fail", f"{found}: the one installed last wins", "the scan", mend)
    else:
        yield Check("cv2", "ok", found, "the scan")


def check_weights(cache_dir: Path | None) -> Iterator[Check]:
    """The lock file can be read, and what is in the cache is what it names."""
    try:
        rows = weights.list_rows(cache_dir)
    except (OSError, ValueError) as error:
        mend = "mend the file or folder, or let REELMILL_WEIGHTS_LOCK and REELMILL_CACHE name others"
        yield Check("weights", "fail", str(error), "weights", mend)
        return
    for name, kind, needed_for in (
        ("sample videos", "sample_video", "`make demo` and the tests"),
        ("weights", "weights", "stages with models, each the weights of its name"),
    ):
        mine = [row for row in rows if row.kind == kind]
        here = [row for row in mine if row.state == "present"]
        damaged = [row.name for row in mine if row.state == "damaged"]
        missing = [row.name for row in mine if row.state == "missing"]
        found = f"{len(here)} of {len(mine)} here, {sum(row.size_bytes for row in here) / 1e6:.0f} MB"
        found += f"; damaged: {', '.join(damaged)}" if damaged else ""
        names = " ".join(damaged or (["samples"] if kind == "sample_video" else missing))
        mend = f"reelmill weights pull {names}" if damaged or missing else ""
        yield Check(name, "warn" if mend else "ok", found, needed_for, mend)


def check_extras() -> Iterator[Check]:
    """Of the base and of every extra: its packages are installed, importable and of a version in the tested range."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in metadata.requires(PROJECT) or []]
    except (ImportError, metadata.PackageNotFoundError) as error:
        yield Check(
            "packages",
            "warn",
            str(error),
            "knowing the tested versions",
            "pip install packaging; " + _install("curate"),
        )
        return
    for extra, needed_for in _EXTRAS.items():
        mine = [one for one in wanted if (one.marker.evaluate({"extra": extra}) if one.marker else not extra)]
        trouble = [text for one in mine if (text := _trouble(one.name, one.specifier.contains))]
        found = ", ".join(trouble or [f"{one.name} {_version(one.name)}" for one in mine])
        status: Status = "ok" if not trouble else "fail" if extra in _NEEDED_EXTRAS else "warn"
        yield Check(
            f"extra {extra}" if extra else "packages", status, found, needed_for, _install(extra) if trouble else ""
        )


def _trouble(name: str, is_tested: Callable[[str], bool]) -> str:
    """What is wrong with the package, or nothing. Looks for its modules without importing them."""
    version = _version(name)
    if version is None:
        return f"{name} is absent"
    if not is_tested(version):
        return f"{name} {version} is outside the tested range"
    top_level = (metadata.distribution(name).read_text("top_level.txt") or "").split()
    if top_level and not any(importlib.util.find_spec(module) for module in top_level if "/" not in module):
        return f"{name} {version} cannot be imported"
    return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _install(extra: str) -> str:
    return f"pip install -c constraints.txt -e '.[{extra}]'" if extra else "pip install -c constraints.txt -e ."


def check_dagster() -> Iterator[Check]:
    """The instance's settings: those of DAGSTER_HOME, or the checkout's, which `reelmill ui` uses."""
    home = os.environ.get("DAGSTER_HOME")
    settings = Path(home or ROOT) / "dagster.yaml"
    where = f"DAGSTER_HOME={home}" if home else str(ROOT)
    mend = f"write `telemetry: {{enabled: false}}` to {settings}"
    try:
        data = yaml.safe_load(settings.read_text())
    except (OSError, yaml.YAMLError) as error:
        mend = (
            "take DAGSTER_HOME away, or copy the checkout's dagster.yaml there" if home else "git restore dagster.yaml"
        )
        yield Check("dagster", "warn", f"{where}: {error}", "`reelmill ui`", mend)
        return
    telemetry = data.get("telemetry") if isinstance(data, dict) else None
    is_off = isinstance(telemetry, dict) and telemetry.get("enabled") is False
    found = f"{where}, telemetry {'off' if is_off else 'ON'}"
    yield Check("dagster", "ok" if is_off else "warn", found, "`reelmill ui`", "" if is_off else mend)
