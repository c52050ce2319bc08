"""The curation graph, declared once: what `reelmill curate` runs from end to end and what each Dagster asset runs alone.

What belongs here: which step follows which, what each reads from and writes to the store, and the summary of a run. The work itself is in
the rooms: `ingest`, `stages/`, `policy`, `shards`, `report`.

Every step reads its input from the store and leaves its output there, so steps run in one process or in many, now or tomorrow.
"""

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import catalog, shards
from pipelines.engines import Engine, EngineSettings, cut_batches
from pipelines.ingest import Found, ingest
from pipelines.policy import Policy, check_states, decide, funnel, load_policy, wanted_videos
from pipelines.publish import mark_failed, report_page, stage_runs, write_shards
from pipelines.stages import Work
from pipelines.steps import Counter, Progress, StepResult, quiet
from pipelines.store import Receipt, Store, drain
from pipelines.tables import (
    DECISIONS,
    FAILURES,
    INPUTS,
    SELECTION,
)

DEFAULT_BATCH = "default"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Curation:
    """What a run is told: where to, by which policies, on which engine, with how much of the machine."""

    store: Store
    policies: tuple[Policy, ...]
    engine: Engine
    settings: EngineSettings
    batch: str | None = None
    """The ingest batch that the run is about; None is all of them."""
    retry_failures: bool = False
    progress: Progress = quiet


# -- steps ------------------------------------------------------------------------------------------------------------


def ingest_step(run: Curation, found: Sequence[Found]) -> StepResult:
    """Hash the files of a batch: table `inputs`. With nothing found, the batch stays as it is.

    Raises:
        ValueError: the output knows no input at all.
    """
    started = time.perf_counter()
    batch = run.batch or DEFAULT_BATCH
    known = run.store.snapshot(INPUTS, batch)
    others = [run.store.snapshot(INPUTS, name) for name in run.store.snapshots(INPUTS) if name != batch]
    elsewhere = frozenset(key for table in others for key in table.column("video_id").to_pylist() if key)
    counter = Counter(run.progress, "ingest", len(found))
    rows = ingest(found, batch, known, elsewhere, run.settings.workers, counter.advance)
    if not rows.num_rows and not others:
        raise ValueError(f"{run.store.root} knows no input yet; give files or folders of video")
    if not rows.equals(known):
        run.store.replace(INPUTS, batch, rows)
    before = set(known.column("uri").to_pylist())
    new = sum(uri not in before for uri in rows.column("uri").to_pylist())
    states = catalog.count(rows.column("state"))
    return StepResult(
        "ingest",
        batch,
        new,
        rows.num_rows - new,
        states.get("failed", 0),
        time.perf_counter() - started,
        {"states": states},
    )


def probe_step(run: Curation) -> StepResult:
    """Container facts of every video that was ever brought: table `videos`."""
    return _measure(run, catalog.probe_work(), catalog.media_rows(run.store, run.batch))


def scan_step(run: Curation) -> StepResult:
    """The decode pass over every video that some policy still wants, once for each distinct set of scan parameters."""
    results = []
    for work, policies in catalog.scan_works(run.policies):
        wanted = wanted_videos(policies, catalog.videos(run.store))
        rows = catalog.media_rows(run.store, run.batch)
        rows = rows.filter(pc.is_in(rows.column("video_id"), pa.array(sorted(wanted), pa.string())))
        results.append(_measure(run, work, rows))
    return _sum("scan", results)


def decide_step(run: Curation, policy: Policy) -> StepResult:
    """Turn measurements into decisions: pure table work, no video. Tables `decisions` and `selection` of the policy.

    Raises:
        RuntimeError: the states do not add up, which would be a fault of ours.
    """
    started = time.perf_counter()
    measured = catalog.measurements(run.store, policy)
    decided = decide(policy, measured)
    arrived = catalog.arrived_inputs(run.store)
    waiting = catalog.inputs(run.store).num_rows - arrived.num_rows
    problems = check_states(
        arrived, measured["videos"], measured["scans"], measured["clips"], decided.selection, policy
    )
    if problems:
        raise RuntimeError("the states do not add up: " + "; ".join(problems[:3]))
    run.store.replace(DECISIONS, policy.name, decided.decisions)
    run.store.replace(SELECTION, policy.name, decided.selection)
    clips = decided.selection.filter(pc.equal(decided.selection.column("subject_kind"), "clip"))
    states = catalog.count(clips.column("state"))
    facts = {
        "states": states,
        "waiting_inputs": waiting,
        "funnel": funnel(policy, decided.decisions, decided.selection).to_pylist(),
    }
    return StepResult(
        "decide", policy.name, clips.num_rows, 0, states.get("failed", 0), time.perf_counter() - started, facts
    )


def shards_step(run: Curation, policy: Policy) -> StepResult:
    """Export what a selection names and pack it: `OUT/shards/<policy>`. What cannot be exported ends as failed, with its reason."""
    started = time.perf_counter()
    written = write_shards(run.store, policy, run.engine, run.settings, run.progress)
    if written.failures:
        run.store.replace(SELECTION, policy.name, mark_failed(catalog.selection(run.store, policy), written.failures))
    stats = shards.stats(run.store, policy.name)
    facts = {
        "samples": written.sample_count,
        "size_bytes": written.size_bytes,
        "media_s": sum(row.duration_s for row in stats),
        "buckets": {row.bucket: row.samples for row in stats},
        "folder": f"{run.store.root}/shards/{policy.name}",
        "reasons": _sum_counts({failure.reason: 1} for failure in written.failures.values()),
    }
    failed = len(written.failures)
    return StepResult(
        "shards",
        policy.name,
        written.exported_count,
        written.reused_count,
        failed,
        time.perf_counter() - started,
        facts,
    )


def report_step(run: Curation, steps: Sequence[StepResult] = (), date: str = "") -> StepResult:
    """The HTML report of everything that is known: `OUT/report.html`."""
    started = time.perf_counter()
    page = report_page(run.store, run.policies, stage_runs(run.policies, steps), date).encode()
    run.store.publish("report.html", partial(drain, data=page))
    return StepResult("report", "all", 1, 0, 0, time.perf_counter() - started, {"size_bytes": len(page)})


# -- the whole graph ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunSummary:
    """What a run did. `failed` are (input, reason, message) of every input that ended so."""

    steps: tuple[StepResult, ...]
    decided: Mapping[str, StepResult]
    shards: Mapping[str, dict[str, Any]]
    failed: list[tuple[str, str, str]]
    input_count: int
    report: str


def curate(run: Curation, found: Sequence[Found]) -> RunSummary:
    """The graph from end to end, under the output's lock. Safe to run again: it continues.

    Raises:
        pipelines.store.OutputBusy: another run holds the output.
        pipelines.store.OutputFull: no room on the disk.
    """
    with run.store.lock():
        run.store.clean()
        whole = replace(run, batch=None)
        steps = [ingest_step(run, found), probe_step(whole), scan_step(whole)]
        decided = {policy.name: decide_step(whole, policy) for policy in run.policies}
        packed = {policy.name: shards_step(whole, policy) for policy in run.policies}
        steps += [*decided.values(), *packed.values()]
        steps.append(report_step(whole, steps, time.strftime("%Y-%m-%d")))
        failed = catalog.failed_inputs(run.store, run.policies)
        for policy in run.policies:
            run.store.publish(f"policies/{policy.name}.yaml", partial(drain, data=policy.resolved_yaml().encode()))
        run.store.write_json(RUN_FILE, {"steps": [asdict(step) for step in steps], "failed": failed})
    return RunSummary(
        steps=tuple(steps),
        decided=decided,
        shards={name: step.facts for name, step in packed.items()},
        failed=failed,
        input_count=catalog.inputs(run.store).num_rows,
        report=f"{run.store.root}/report.html",
    )


def last_policies(store: Store) -> tuple[Policy, ...]:
    """The policies that runs have used here, overrides applied, as they were then.

    Raises:
        ValueError: no run has finished here.
    """
    paths = [path for path in store.files("policies") if path.endswith(".yaml")]
    if not paths:
        raise ValueError(f"no run has finished in {store.root}; name the policy with --policy")
    policies = []
    for path in paths:
        with tempfile.NamedTemporaryFile(
            suffix=".yaml"
        ) as copy:  # the output may be an object store; a policy is read from a file
            copy.write(store.read_bytes(path))
            copy.flush()
            policies.append(load_policy(copy.name))
    return tuple(policies)


def _measure(run: Curation, work: Work, rows: pa.Table) -> StepResult:
    started = time.perf_counter()
    stage = work.stage.name
    keys = rows.column(work.stage.key).to_pylist()
    if run.retry_failures:
        failed = run.store.read(stage, work.fingerprint, FAILURES)
        run.store.forget(
            stage, work.fingerprint, failed.filter(failed.column("is_retryable")).column("key").to_pylist()
        )
    missing = set(run.store.missing(stage, work.fingerprint, keys))
    counter = Counter(run.progress, stage, len(keys), len(keys) - len(missing))
    receipts: list[Receipt] = []
    for receipt in run.engine.run(
        work, cut_batches(rows, work.stage.key, missing, run.settings.workers), run.store, run.settings
    ):
        receipts.append(receipt)
        counter.advance(len(receipt.keys))
    facts = {
        "fingerprint": work.fingerprint,
        "stage_s": round(sum(receipt.seconds for receipt in receipts), 2),
        "rows": _sum_counts(receipt.rows for receipt in receipts),
        "reasons": _sum_counts(receipt.reasons for receipt in receipts),
    }
    failed_count = sum(receipt.failed for receipt in receipts)
    return StepResult(
        stage,
        run.batch or "all",
        len(missing),
        len(keys) - len(missing),
        failed_count,
        time.perf_counter() - started,
        facts,
    )


def _sum(step: str, results: Sequence[StepResult]) -> StepResult:
    """Several runs of one step as one result."""
    facts = {
        "fingerprint": [result.facts["fingerprint"] for result in results],
        "stage_s": sum(result.facts["stage_s"] for result in results),
        "rows": _sum_counts(result.facts["rows"] for result in results),
        "reasons": _sum_counts(result.facts["reasons"] for result in results),
    }
    totals = (sum(getattr(result, name) for result in results) for name in ("done", "reused", "failed"))
    done, reused, failed = totals
    return StepResult(step, results[0].key, done, reused, failed, sum(result.seconds for result in results), facts)


def _sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, number in each.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))
