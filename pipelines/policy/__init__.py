"""Policies: a person's YAML of gates, quotas, buckets and export settings, and what follows from it.

`load_policy` reads one; `decide` turns measurements into the ledger and the selection; `wanted_videos` says what is worth a
scan; `funnel`, `diff` and `check_states` read the outcome. All of it is pure table work: no video, no folder, no engine.
"""

from pipelines.policy.decide import Decisions, decide, wanted_videos
from pipelines.policy.loading import load_policy
from pipelines.policy.outcome import FUNNEL_SCHEMA, diff, funnel
from pipelines.policy.schema import Gate, OrientationQuota, Policy, PolicyError, bounds_of
from pipelines.policy.source import shipped_policies
from pipelines.policy.states import check_states

__all__ = [
    "FUNNEL_SCHEMA",
    "Decisions",
    "Gate",
    "OrientationQuota",
    "Policy",
    "PolicyError",
    "bounds_of",
    "check_states",
    "decide",
    "diff",
    "funnel",
    "load_policy",
    "shipped_policies",
    "wanted_videos",
]
