"""The two families of partitions. A partition is a batch of videos or a policy, never a video: what is known of one video is a row.

Nothing else belongs here, so every module may import this one.
"""

import dagster as dg

from pipelines.policy import shipped_policies

BATCHES = dg.DynamicPartitionsDefinition(name="ingest_batch")
"""One key for each folder in the inbox; it grows as video arrives."""

POLICIES = dg.StaticPartitionsDefinition(shipped_policies())
"""One key for each policy that ships, read from the files under pipelines/policies."""
