"""Where the parts of a policy's shards lie in the output, and the schema of their index.

shards/<policy>/<bucket>/shard-00000.tar         samples
shards/<policy>/index.parquet                    one row for every sample
shards/<policy>/manifest.json                    written last: without it there are no shards
shards/<policy>/.next/<bucket>/shard-00000.<content>.{tar,json}   tars of a write that is under way, with their index rows
exports/<policy>/<export fingerprint>/<2 digits>/<clip_id>.{mp4,json}   exports that are in no tar yet, with their facts
"""

import re

import pyarrow as pa

from pipelines.store import Store

_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("clip_id", pa.string(), "the sample's key: names of its members without suffix"),
    ("video_id", pa.string(), "the source"),
    ("bucket", pa.string(), "such as 16x9-4s"),
    ("shard", pa.string(), "path of the tar under shards/<policy>/"),
    ("sample_index", pa.int64(), "0-based place in the shard"),
    ("mp4_offset", pa.int64(), "first byte of the clip in the tar"),
    ("mp4_size_bytes", pa.int64(), "bytes of the clip"),
    ("json_offset", pa.int64(), "first byte of the .json"),
    ("json_size_bytes", pa.int64(), "bytes of the .json"),
    ("txt_offset", pa.int64(), "first byte of the caption; null without one"),
    ("txt_size_bytes", pa.int64(), "bytes of the caption; null without one"),
    ("sha256", pa.string(), "of the clip's bytes"),
    ("json_sha256", pa.string(), "of the .json's bytes"),
    ("txt_sha256", pa.string(), "of the caption's bytes; null without one"),
    ("width_px", pa.int64(), "picture width"),
    ("height_px", pa.int64(), "picture height"),
    ("frame_count", pa.int64(), "frames"),
    ("fps", pa.float64(), "frames per second, mean"),
    ("duration_s", pa.float64(), "length of the picture track"),
    ("has_audio", pa.bool_(), "the clip has a sound track"),
    ("audio_missing_s", pa.float64(), "silence put in where the source had no sound"),
    ("start_pts", pa.int64(), "first frame in the source"),
    ("end_pts", pa.int64(), "exclusive end in the source"),
    ("time_base_num", pa.int64(), "seconds per PTS unit of the source, numerator"),
    ("time_base_den", pa.int64(), "seconds per PTS unit of the source, denominator"),
    ("export", pa.string(), "fingerprint of encoder settings and picture size"),
)

INDEX_SCHEMA = pa.schema([pa.field(name, kind, metadata={"about": about}) for name, kind, about in _COLUMNS])


def policy_folder(policy: str) -> str:
    """`shards/<policy>`.

    Raises:
        ValueError: the name is not fit for a folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", policy):
        raise ValueError(
            f"policy name {policy!r} must be letters, digits, '.', '_' or '-', and begin with one of the first two"
        )
    return f"shards/{policy}"


def index_path(policy: str) -> str:
    return f"{policy_folder(policy)}/index.parquet"


def manifest_path(policy: str) -> str:
    return f"{policy_folder(policy)}/manifest.json"


def next_folder(policy: str) -> str:
    return f"{policy_folder(policy)}/.next"


def shard_name(bucket: str, number: int) -> str:
    """Path of a tar under its policy's folder."""
    return f"{bucket}/shard-{number:05d}.tar"


def published_tars(store: Store, policy: str) -> list[str]:
    """Tars on disk under the policy's folder, whether the manifest knows them or not, as paths under that folder."""
    folder = policy_folder(policy) + "/"
    names = [path.removeprefix(folder) for path in store.files(policy_folder(policy))]
    return sorted(name for name in names if name.endswith(".tar") and not name.startswith("."))
