"""Shot boundaries against PySceneDetect, on a seeded set whose boundaries are known.

    python -m benchmarks.cuts --samples FOLDER [--seeds 3 4] [--videos 12] [--json PATH]

Scoring. A hard cut is found if a boundary called a cut lies within one frame of it. A gradual transition is found if one
called dissolve, wipe or fade has its middle inside it and overlaps it by at least 0.3 (intersection over union). Each is matched
once; everything else that is reported is false. PySceneDetect reports points: one within a frame of a cut finds the cut, one inside a
gradual transition (two frames of grace) finds that, however many more points lie there; any other point is a false cut.
Thresholds were tuned on seed 0, and rules added after a look at the errors on seed 1; no other seed was looked at.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, detect

from benchmarks.cut_set import Boundary, CutVideo, make_set, read_pieces
from pipelines.video.scan import scan
from pipelines.video.scan_params import ScanParams

CUT_FRAMES, GRACE_FRAMES, MIN_OVERLAP = 1, 2, 0.3


@dataclass
class Score:
    """Counts over a set."""

    found: int = 0
    false: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        return self.found / max(self.found + self.false, 1)

    @property
    def recall(self) -> float:
        return self.found / max(self.found + self.missed, 1)

    @property
    def f1(self) -> float:
        return 2 * self.found / max(2 * self.found + self.false + self.missed, 1)


Scores = dict[str, Score]


def our_boundaries(path: Path) -> list[Boundary]:
    rows = scan(str(path), "0" * 32, ScanParams(), 2, lambda: None)["shots"].to_pylist()
    return [
        Boundary(row["transition"], row["start_frame"] - row["transition_frame_count"], row["start_frame"])
        for row in rows
        if row["transition"] != "start"
    ]


def score_ours(video: CutVideo, reported: Sequence[Boundary], scores: Scores) -> None:
    for name, is_cut in (("cuts", True), ("gradual", False)):
        true = [boundary for boundary in video.boundaries if (boundary.kind == "cut") == is_cut]
        left = list(true)
        for boundary in (one for one in reported if (one.kind in ("cut", "gap")) == is_cut):
            hits = [one for one in left if (_is_near(boundary, one) if is_cut else _overlaps(boundary, one))]
            if hits:
                left.remove(hits[0])
            else:
                scores[name].false += 1
        scores[name].found += len(true) - len(left)
        scores[name].missed += len(left)


def score_points(video: CutVideo, points: Sequence[int], scores: Scores) -> None:
    """PySceneDetect's cut points."""
    left = list(video.boundaries)
    for point in points:
        near = [one for one in video.boundaries if one.kind == "cut" and abs(one.first - point) <= CUT_FRAMES]
        inside = [
            one
            for one in video.boundaries
            if one.kind != "cut" and one.first - GRACE_FRAMES <= point <= one.end + GRACE_FRAMES
        ]
        hits = near or inside
        if not hits:
            scores["cuts"].false += 1
        elif hits[0] in left:
            left.remove(hits[0])
    for boundary in video.boundaries:
        score = scores["cuts" if boundary.kind == "cut" else "gradual"]
        if boundary in left:
            score.missed += 1
        else:
            score.found += 1


def _is_near(one: Boundary, other: Boundary) -> bool:
    return abs(one.end - other.first) <= CUT_FRAMES


def _overlaps(found: Boundary, true: Boundary) -> bool:
    both = min(found.end, true.end) - max(found.first, true.first)
    either = max(found.end, true.end) - min(found.first, true.first)
    return true.first <= (found.first + found.end) / 2 <= true.end and both >= MIN_OVERLAP * either


def measure(samples: Path, seeds: Sequence[int], videos: int) -> list[dict[str, object]]:
    """One row for every seed and system."""
    rivals = {"PySceneDetect adaptive": AdaptiveDetector, "PySceneDetect content": ContentDetector}
    pieces = read_pieces(samples)
    rows: list[dict[str, object]] = []
    for seed in seeds:
        scores: dict[str, Scores] = {name: {"cuts": Score(), "gradual": Score()} for name in ("reelmill", *rivals)}
        look_alikes = 0
        with tempfile.TemporaryDirectory() as folder:
            for video in make_set(Path(folder), samples, seed, videos, pieces=pieces):
                look_alikes += len(video.look_alikes)
                score_ours(video, our_boundaries(video.path), scores["reelmill"])
                for name, detector in rivals.items():
                    scenes = detect(str(video.path), detector())
                    score_points(video, [scene[0].frame_num for scene in scenes[1:]], scores[name])
                video.path.unlink()
        for name, both in scores.items():
            row: dict[str, object] = {"seed": seed, "system": name, "look_alikes": look_alikes}
            for kind, score in both.items():
                row |= {
                    f"{kind}_count": score.found + score.missed,
                    f"{kind}_f1": round(score.f1, 4),
                    f"{kind}_precision": round(score.precision, 4),
                    f"{kind}_recall": round(score.recall, 4),
                }
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Shot boundaries against PySceneDetect on a seeded set.")
    parser.add_argument(
        "--samples", type=Path, default=os.environ.get("REELMILL_SAMPLES"), help="folder of the sample videos"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4], help="0 is the tuning set, 1 was looked at")
    parser.add_argument("--videos", type=int, default=12, help="videos of 14 shots for every seed")
    parser.add_argument("--json", type=Path, help="write the rows there")
    arguments = parser.parse_args()
    samples = arguments.samples or fetched_samples()
    rows = measure(Path(samples), arguments.seeds, arguments.videos)
    heads = ("cuts F1", "prec", "recall", "grad. F1", "prec", "recall")
    print(f"{'seed':>4} {'system':<24}" + "".join(f"{head:>9}" for head in heads))
    for row in rows:
        figures = [
            float(str(row[f"{kind}_{what}"])) for kind in ("cuts", "gradual") for what in ("f1", "precision", "recall")
        ]
        print(
            "{:>4} {:<24}{:>9.3f}{:>7.3f}{:>7.3f}{:>12.3f}{:>7.3f}{:>7.3f}".format(row["seed"], row["system"], *figures)
        )
    for kind in ("cuts", "gradual"):
        mean = np.mean([float(str(row[f"{kind}_f1"])) for row in rows if row["system"] == "reelmill"])
        print(f"reelmill, mean over seeds: {kind} F1 {mean:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def fetched_samples() -> Path:
    """A temporary folder with the sample videos of the weights lock."""
    from pipelines import weights

    folder = Path(tempfile.mkdtemp(prefix="reelmill-samples-"))
    weights.copy_to(folder, ["samples"])
    return folder


if __name__ == "__main__":
    main()
