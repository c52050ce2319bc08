"""Asset checks: the promises of docs/architecture.md, held against what was stored. A broken one blocks what comes after.

What belongs here: asking `pipelines` whether a promise holds. Not here: what to do about it.
"""

import dagster as dg
import pyarrow.compute as pc

from orchestration.resources import Reels
from pipelines import catalog
from pipelines.policy import check_states, load_policy, shipped_policies
from pipelines.shards import verify
from pipelines.store import open_store

MAX_FAILED_SHARE = 0.2


@dg.asset_check(
    asset="videos", description="At most a fifth of all inputs failed; more points at the source, not at single files."
)
def share_of_failures_is_bearable(reels: Reels) -> dg.AssetCheckResult:
    store = open_store(reels.out)
    inputs, videos = catalog.inputs(store), catalog.videos(store)
    failed = pc.sum(pc.equal(inputs["state"], "failed")).as_py() or 0
    failed += pc.sum(pc.equal(videos["status"], "failed")).as_py() or 0
    share = failed / max(1, inputs.num_rows)
    return dg.AssetCheckResult(
        passed=share <= MAX_FAILED_SHARE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"failed": failed, "share": share},
    )


@dg.asset_check(asset="clips", blocking=True, description="Every clip's span lies inside the one shot that it names.")
def spans_lie_inside_one_shot(reels: Reels) -> dg.AssetCheckResult:
    store = open_store(reels.out)
    policies = [load_policy(name, reels.overrides) for name in shipped_policies()]
    outside = sorted(
        {clip for policy in policies for clip in catalog.spans_outside_shots(catalog.measurements(store, policy))}
    )
    return dg.AssetCheckResult(passed=not outside, metadata={"outside": len(outside), "examples": outside[:3]})


def _for_policies(reels: Reels) -> list[str]:
    store = open_store(reels.out)
    return [
        name for name in shipped_policies() if catalog.selection(store, load_policy(name, reels.overrides)).num_rows
    ]


@dg.asset_check(
    asset="selection", blocking=True, description="Every input, video and clip has exactly one state; counts add up."
)
def states_add_up(reels: Reels) -> dg.AssetCheckResult:
    store = open_store(reels.out)
    problems = []
    for name in _for_policies(reels):
        policy = load_policy(name, reels.overrides)
        measured = catalog.measurements(store, policy)
        arrived = catalog.arrived_inputs(store)
        problems += check_states(
            arrived, measured["videos"], measured["scans"], measured["clips"], catalog.selection(store, policy), policy
        )
    return dg.AssetCheckResult(passed=not problems, metadata={"problems": problems[:5]})


@dg.asset_check(asset="shards", blocking=True, description="Every sample reads back: checksums, sizes and index agree.")
def shards_read_back(reels: Reels) -> dg.AssetCheckResult:
    store = open_store(reels.out)
    problems = [problem for name in catalog.sharded_policies(store) for problem in verify(reels.out, name).problems]
    return dg.AssetCheckResult(passed=not problems, metadata={"problems": [str(problem) for problem in problems[:5]]})


CHECKS = [share_of_failures_is_bearable, spans_lie_inside_one_shot, states_add_up, shards_read_back]
