"""The one place that assembles Dagster's Definitions; the UI, the tests and the command line call `build_definitions`.

What belongs here: putting parts together. No side effect on import beyond building the objects.
"""

import os

import dagster as dg

from orchestration.assets import ASSETS
from orchestration.checks import CHECKS
from orchestration.jobs import JOBS, SCHEDULES, SENSORS
from orchestration.resources import Reels


def build_definitions(reels: Reels | None = None) -> dg.Definitions:
    """The code location; tests give their own `reels`.

    Steps run in one process, one after the other: the engine inside a step uses the whole machine, and the output has one
    writer. `reelmill ui` says where to by REELMILL_OUT and REELMILL_INBOX.
    """
    default = Reels(
        out=os.environ.get("REELMILL_OUT", "out/dagster"), inbox=os.environ.get("REELMILL_INBOX", "out/inbox")
    )
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources={"reels": reels or default},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
