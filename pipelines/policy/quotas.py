"""Which clips a quota drops: the orientation mix of a set (Movie Gen, curation: 60/40 and 80/20 landscape to portrait).

The order in which clips are dropped is a seeded hash of the clip id, so it depends on nothing but the clip: more data moves
the boundary, it never reshuffles what lies on either side of it.
"""

import hashlib

import numpy as np
import pyarrow as pa

from pipelines.policy.schema import OrientationQuota


def over_quota(quota: OrientationQuota, clip_ids: pa.Array, is_landscape: np.ndarray) -> np.ndarray:
    """True for each clip that the quota drops."""
    counts = (int(is_landscape.sum()), int((~is_landscape).sum()))
    keeps = kept_counts(quota, *counts)
    drops = np.zeros(len(clip_ids), bool)
    for side, count, keep in zip((is_landscape, ~is_landscape), counts, keeps, strict=True):
        if keep < count:
            members = np.flatnonzero(side)
            ranks = hash_order(clip_ids.take(pa.array(members)), quota.seed)
            drops[members[np.argsort(ranks, kind="stable")[keep:]]] = True
    return drops


def kept_counts(quota: OrientationQuota, landscape: int, portrait: int) -> tuple[int, int]:
    """How many landscape and portrait clips stay: the largest set in the wanted mix, bounded below if not strict."""
    shares = (quota.landscape, 1 - quota.landscape)
    counts = (landscape, portrait)
    if not quota.is_strict and 0 in counts:
        return counts
    total = min((count / share for count, share in zip(counts, shares, strict=True) if share > 0), default=0.0)
    # The epsilon keeps 60 of 100 at 0.6 from becoming 59 by rounding.
    keeps = [min(count, int(total * share + 1e-6)) for count, share in zip(counts, shares, strict=True)]
    if not quota.is_strict:
        floor = int(np.ceil(sum(counts) * (1 - quota.max_dropped_share) - 1e-6))
        surplus = 0 if counts[0] - keeps[0] >= counts[1] - keeps[1] else 1
        keeps[surplus] = min(counts[surplus], max(keeps[surplus], floor - keeps[1 - surplus]))
    return keeps[0], keeps[1]


def hash_order(ids: pa.Array, seed: int) -> np.ndarray:
    """A 64-bit rank for each id, uniform, from the seed and the id alone."""
    salt = f"orientation:{seed}:".encode()
    digests = b"".join(hashlib.blake2b(salt + name.encode(), digest_size=8).digest() for name in ids.to_pylist())
    return np.frombuffer(digests, dtype=">u8")
