"""What goes into a shard: samples, their order, and the export that each of them needs. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.buckets import Bucket
from pipelines.store import FINGERPRINT_DIGITS, digest
from pipelines.video.export_settings import EXPORT_VERSION, ExportSettings

FORMAT = "reelmill-shards"
FORMAT_VERSION = 1

CLIP_KEYS = (
    "clip_id", "video_id", "start_pts", "end_pts", "time_base_num", "time_base_den", "frame_count",
    "crop_left_px", "crop_top_px", "crop_width_px", "crop_height_px", "width_px", "height_px",
)  # fmt: skip
"""Columns of table `clips` that an export reads."""

FACT_KEYS = (
    "frame_count", "duration_s", "fps", "width_px", "height_px", "has_audio", "audio_missing_s", "sha256", "size_bytes",
)  # fmt: skip
"""Facts that an export returns (`video/export.py`)."""

OWN_JSON_KEYS = ("clip_id", "video_id", "bucket", "source", "media")


@dataclass(frozen=True)
class Sample:
    """One selected clip: its `clips` row, its bucket, its caption if it has one, and what else its .json should say.

    `metadata` is JSON (scores, lineage, licence); no path and no time of day, or shards would differ between runs.
    """

    clip: Mapping[str, Any]
    bucket: Bucket
    caption: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [key for key in CLIP_KEYS if self.clip.get(key) is None]
        if missing:
            raise ValueError(f"sample {self.clip.get('clip_id')}: its clip row lacks {missing}")
        taken = sorted(set(OWN_JSON_KEYS) & set(self.metadata))
        if taken:
            raise ValueError(f"sample {self.clip_id}: metadata may not hold {taken}; these keys are the shard's own")

    @property
    def clip_id(self) -> str:
        return str(self.clip["clip_id"])

    @property
    def video_id(self) -> str:
        return str(self.clip["video_id"])


@dataclass(frozen=True)
class Packing:
    """When a tar is full, and the seed of the order. A tar holds at least one sample, however large that is."""

    max_bytes: int = 268_435_456
    max_samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or self.max_samples < 1:
            raise ValueError(
                f"shards: max_bytes and max_samples must be at least 1, got {self.max_bytes}, {self.max_samples}"
            )


@dataclass(frozen=True)
class ExportItem:
    """One export to run: write the clip to `out_path` (a temporary name) and return its facts."""

    clip: Mapping[str, Any]
    width_px: int
    height_px: int
    settings: Mapping[str, Any]
    out_path: Path

    @property
    def clip_id(self) -> str:
        return str(self.clip["clip_id"])

    def request(self, path: str, threads: int = 1) -> dict[str, Any]:
        """The sandbox request of task `export`, with the path of the source."""
        return {
            "path": path,
            "clip": {key: self.clip[key] for key in CLIP_KEYS},
            "width_px": self.width_px,
            "height_px": self.height_px,
            "settings": dict(self.settings),
            "out_path": str(self.out_path),
            "threads": threads,
        }


@dataclass(frozen=True)
class ExportFailure:
    """Why a clip is in no shard."""

    reason: str
    message: str = ""
    is_retryable: bool = False


def export_fingerprint(settings: ExportSettings, bucket: Bucket) -> str:
    """What, beside the clip itself, decides an export's bytes: settings, picture size, version of the exporter."""
    shape = [bucket.width_px, bucket.height_px]
    return digest({"settings": settings.to_dict(), "shape": shape, "version": EXPORT_VERSION})[:FINGERPRINT_DIGITS]


def spread_order(samples: Iterable[Sample], seed: int) -> list[Sample]:
    """A seeded order that keeps the clips of one source apart: the same for the same set, however it was given.

    The n clips of a source are shuffled by hash and placed at (k + offset) / n of the way, k = 0..n-1, with a hashed offset of
    the source in [0, 1). So between two clips of a source lies one of every source that has at least as many, and a source that
    comes or goes moves no other clip against its neighbours.
    """
    by_source: dict[str, list[tuple[int, Sample]]] = {}
    for sample in samples:
        by_source.setdefault(sample.video_id, []).append((_hash(seed, sample.clip_id), sample))
    placed: list[tuple[int, int, str, Sample]] = []
    for video_id, clips in by_source.items():
        offset = _hash(seed, video_id)
        for k, (shuffle, sample) in enumerate(sorted(clips, key=lambda pair: (pair[0], pair[1].clip_id))):
            placed.append((((k << 64) + offset) // len(clips), shuffle, sample.clip_id, sample))
    return [sample for *_, sample in sorted(placed, key=lambda item: item[:3])]


def _hash(seed: int, text: str) -> int:
    """64 uniform bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{text}".encode()).digest()[:8], "big")


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def json_member(sample: Sample, facts: Mapping[str, Any], export: str) -> bytes:
    """The sample's .json: sorted keys, one line."""
    clip = sample.clip
    own = {
        "clip_id": sample.clip_id,
        "video_id": sample.video_id,
        "bucket": sample.bucket.name,
        "source": {key: clip[key] for key in CLIP_KEYS if key not in ("clip_id", "video_id", "frame_count")},
        "media": {"export": export} | {key: facts[key] for key in FACT_KEYS},
    }
    try:
        return json.dumps(own | dict(sample.metadata), sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"sample {sample.clip_id}: its metadata is not plain JSON ({error}); use null for NaN"
        ) from error


def inputs_digest(ordered: Mapping[str, Sequence[Sample]], settings: ExportSettings, packing: Packing) -> str:
    """Identity of everything that decides the shards' bytes: two runs with the same digest need not write twice."""
    running = hashlib.sha256(digest([FORMAT_VERSION, packing.max_bytes, packing.max_samples, packing.seed]).encode())
    for name, samples in sorted(ordered.items()):
        for sample in samples:
            clip = [sample.clip[key] for key in CLIP_KEYS]
            export = export_fingerprint(settings, sample.bucket)
            running.update(digest([name, clip, export, sample.caption, dict(sample.metadata)]).encode())
    return running.hexdigest()
