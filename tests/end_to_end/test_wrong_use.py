"""A wrong policy or option ends with one clear sentence and exit status 2, and leaves nothing behind."""

from pathlib import Path

import pytest

from tests.end_to_end.conftest import Command

WRONG = {
    "no command": ((), "COMMAND"),
    "an unknown command": (("curat",), "curat"),
    "no output": (("curate", "{reels}"), "--out"),
    "a source that does not exist": (("curate", "{reels}/nowhere", "--out", "{out}"), "does not exist"),
    "no source at all": (("curate", "--out", "{out}"), "knows no input"),
    "an unknown policy": (("curate", "{reels}", "--out", "{out}", "--policy", "dmeo"), "demo"),
    "an unknown gate": (
        ("curate", "{reels}", "--out", "{out}", "--policy", "demo", "--set", "gates.moton.min=1"),
        "motion",
    ),
    "a bound that is no number": (
        ("curate", "{reels}", "--out", "{out}", "--policy", "demo", "--set", "gates.motion.min=much"),
        "motion",
    ),
    "an override without a value": (
        ("curate", "{reels}", "--out", "{out}", "--policy", "demo", "--set", "gates.motion"),
        "=",
    ),
    "an unknown scan parameter": (
        ("curate", "{reels}", "--out", "{out}", "--policy", "demo", "--set", "scan.trim_cuts_s=1"),
        "trim_cut_s",
    ),
    "an unknown export setting": (
        ("curate", "{reels}", "--out", "{out}", "--policy", "demo", "--set", "export.crff=1"),
        "crf",
    ),
    "no workers": (("curate", "{reels}", "--out", "{out}", "--workers", "0"), "workers"),
    "too little memory": (("curate", "{reels}", "--out", "{out}", "--memory-gib", "0"), "memory"),
    "the same policy twice": (
        ("curate", "{reels}", "--out", "{out}", "--policy", "demo", "--policy", "demo"),
        "one name",
    ),
    "an output that is a file": (("curate", "{reels}", "--out", "{reels}/bikes.mp4"), "cannot be a folder"),
    "a recut of no output": (("recut", "{out}", "--policy", "demo"), "no output"),
    "unknown weights": (("weights", "pull", "sscdd"), "sscd"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_ends_with_one_sentence_and_status_2(
    case: str, reelmill: Command, reels: Path, tmp_path: Path
) -> None:
    args, word = WRONG[case]
    out = tmp_path / "out"
    ended = reelmill(*(arg.format(reels=reels, out=out) for arg in args))
    assert ended.status == 2, ended
    assert word in ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert "Traceback" not in ended.err
    assert not out.exists() or not [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
