"""What each command does: turn options into a `Curation`, call the room, print a short table.

What belongs here: the edge between typed options and `pipelines`. A mistake in the options becomes `WrongUse` before any work begins.
"""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestration.terminal import ProgressLines, console, errors, print_table
from pipelines import catalog, curate, shards, weights
from pipelines.curate import Curation, RunSummary
from pipelines.engines import Engine, EngineSettings
from pipelines.engines.local import LOCAL
from pipelines.ingest import find
from pipelines.policy import Policy, diff, load_policy
from pipelines.publish import explain_subject, verify_shards
from pipelines.steps import StepResult
from pipelines.store import Store, open_store
from pipelines.video.sandbox import Limits

ENGINES: dict[str, Engine] = {"local": LOCAL}
DEFAULT_POLICY = "pretrain-256"


class WrongUse(Exception):
    """Something the person typed cannot be used; one sentence, exit status 2."""


@contextlib.contextmanager
def checking_options() -> Iterator[None]:
    """Mistakes found while options become objects are the person's; later ones are ours or the machine's."""
    try:
        yield
    except ValueError as error:
        raise WrongUse(str(error)) from error


def run_curate(args: argparse.Namespace) -> int:
    with checking_options():
        found = find(args.sources) if args.sources else []
        run = _curation(args, open_store(args.out))
        if not found and not catalog.inputs(run.store).num_rows:
            raise WrongUse(f"{args.out} knows no input yet; give files or folders of video")
    with ProgressLines() as progress:
        summary = curate.curate(replace(run, progress=progress), found)
    print_summary(summary)
    return _status(summary, args.allow_failures)


def run_recut(args: argparse.Namespace) -> int:
    with checking_options():
        store = _existing(args.out)
        policy = load_policy(args.policies[0], args.overrides)
    run = Curation(store, (policy,), LOCAL, EngineSettings(1, 1, Limits()))
    before = catalog.selection(store, policy)
    with store.lock():
        step = curate.decide_step(run, policy)
    changes = diff(before, catalog.selection(store, policy)).to_pylist()
    _print_funnel(policy.name, step)
    rows = [
        (
            row["subject_kind"],
            _state(row["from_state"], row["from_gate"]),
            _state(row["to_state"], row["to_gate"]),
            row["count"],
            " ".join(name[:8] for name in row["examples"]),
        )
        for row in changes
    ]
    print_table("What changed", ("", "from", "to", "count", "examples"), rows or [("nothing", "", "", 0, "")])
    console.print(
        f"Shards are as they were; `reelmill curate --out {args.out} --policy ...` brings them up to this.",
        markup=False,
    )
    return 0


def print_summary(summary: RunSummary) -> None:
    """The table at the end of a run: what was done, reused, rejected, failed."""
    for name, step in summary.decided.items():
        _print_funnel(name, step)
    rows = [(step.step, step.key, step.done, step.reused, step.failed, step.seconds) for step in summary.steps]
    print_table("This run", ("step", "of", "done", "reused", "failed", "seconds"), rows)
    if summary.failed:
        print_table("Not used", ("input", "reason", "what happened"), summary.failed[:20])
        if len(summary.failed) > 20:
            console.print(f"... and {len(summary.failed) - 20} more in the report\n", markup=False)
    for name, facts in summary.shards.items():
        print_table(f"Shards of {name}", ("bucket", "samples"), [*facts["buckets"].items(), ("all", facts["samples"])])
        console.print(f"shards  {facts['folder']}", markup=False)
    console.print(f"report  {summary.report}", markup=False)


def _print_funnel(name: str, step: StepResult) -> None:
    rows = [
        (
            row["subject_kind"],
            row["gate"],
            row["threshold"] or "",
            row["in"],
            row["rejected"],
            row["errors"],
            row["out"],
        )
        for row in step.facts["funnel"]
        if row["in"] and (row["rejected"] or row["errors"] or row["threshold"] is None)
    ]
    print_table(f"Funnel of {name}", ("", "gate", "keeps", "in", "rejected", "failed", "out"), rows)


def _state(state: str, gate: str | None) -> str:
    return f"{state} ({gate})" if gate else state


def _status(summary: RunSummary, allowed_share: float) -> int:
    share = len(summary.failed) / max(1, summary.input_count)
    if share > allowed_share:
        errors.print(
            f"reelmill: {len(summary.failed)} of {summary.input_count} inputs failed, more than --allow-failures {allowed_share:g} "
            f"allows; everything else is done, and the report says why for each",
            markup=False,
        )
        return 1
    return 0


def _curation(args: argparse.Namespace, store: Store) -> Curation:
    limits = Limits(memory_bytes=int(args.memory_gib * 2**30), stall_s=args.stall_s)
    return Curation(
        store=store,
        policies=policies_of(args),
        engine=ENGINES[args.engine],
        settings=EngineSettings(args.workers, args.threads, limits),
        batch=args.batch,
        retry_failures=args.retry_failures,
    )


def policies_of(args: argparse.Namespace) -> tuple[Policy, ...]:
    """The policies that were asked for, overrides applied.

    Raises:
        ValueError: a policy cannot be read, or two have one name and would write the same shards.
    """
    policies = tuple(load_policy(name, args.overrides) for name in args.policies or [DEFAULT_POLICY])
    names = [policy.name for policy in policies]
    if len(set(names)) < len(names):
        raise ValueError(f"two policies have one name: {', '.join(names)}; each writes shards under its name")
    return policies


def _existing(out: str) -> Store:
    if "://" not in out and not Path(out, "tables").is_dir():
        raise ValueError(f"{out} is no output of `reelmill curate`: it has no tables")
    return open_store(out)


def last_policies(store: Store, args: argparse.Namespace) -> tuple[Policy, ...]:
    """The policies that were named, or those of the last run with the overrides that it had."""
    if args.policies:
        return policies_of(args)
    return curate.last_policies(store)


def run_explain(args: argparse.Namespace) -> int:
    with checking_options():
        store = _existing(args.out)
        policies = last_policies(store, args)
        explanation = explain_subject(store, policies, args.id)
    explanation.print(console)
    return 0


def run_report(args: argparse.Namespace) -> int:
    with checking_options():
        store = _existing(args.out)
        policies = last_policies(store, args)
    with store.lock():
        curate.report_step(Curation(store, policies, LOCAL, EngineSettings(1, 1, Limits())))
    console.print(f"{args.out}/report.html", markup=False)
    return 0


def run_shards_verify(args: argparse.Namespace) -> int:
    with checking_options():
        store = _existing(args.out)
        names = [args.policy] if args.policy else catalog.sharded_policies(store)
    problems: list[shards.Problem] = []
    for name in names:
        report = verify_shards(store, name, LOCAL, EngineSettings(args.workers, 1, Limits()))
        problems += report.problems
        console.print(
            f"{name}: {report.sample_count} samples in {report.shard_count} shards read back, {report.decoded_count} clips decoded",
            markup=False,
        )
    for problem in problems:
        errors.print(f"reelmill: {problem}", style="red", markup=False)
    return 1 if problems else 0


def run_shards_stats(args: argparse.Namespace) -> int:
    with checking_options():
        store = _existing(args.out)
        names = [args.policy] if args.policy else catalog.sharded_policies(store)
    for name in names:
        buckets = shards.stats(store, name)
        rows = [(row.bucket, row.samples, row.shards, row.size_bytes / 2**20, row.duration_s) for row in buckets]
        totals = ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))
        print_table(f"Shards of {name}", ("bucket", "samples", "shards", "MiB", "seconds"), [*rows, totals])
    return 0


def run_weights_list(args: argparse.Namespace) -> int:
    _print_weights(weights.list_rows())
    return 0


def run_weights_verify(args: argparse.Namespace) -> int:
    with checking_options():
        rows = weights.verify(args.names or ["all"])
    _print_weights(rows)
    damaged = [row.name for row in rows if row.state == "damaged" or (args.names and row.state == "missing")]
    if damaged:
        errors.print(
            f"reelmill: not as the lock file says: {', '.join(damaged)}; `reelmill weights pull` fetches them anew",
            markup=False,
        )
    return 1 if damaged else 0


def run_weights_pull(args: argparse.Namespace) -> int:
    with checking_options():
        weights.load_lock().select(args.names)
    rows = weights.pull_rows(args.names, say=lambda line: console.print(line, markup=False))
    if args.into:
        weights.copy_to(Path(args.into), args.names)
    _print_weights(rows)
    return 0


def _print_weights(rows: Sequence[weights.Row]) -> None:
    columns = ("name", "state", "MiB", "licence", "for", "from")
    print_table("", columns, [(r.name, r.state, r.size_bytes / 2**20, r.licence, r.purpose, r.source) for r in rows])


def run_doctor(args: argparse.Namespace) -> int:
    from orchestration import doctor

    checks = doctor.run_checks(out=Path(args.out))
    print_table(
        "",
        ("", "what", "found", "needed for", "mend"),
        [(c.status, c.name, c.found, c.needed_for, c.mend) for c in checks],
    )
    return 1 if any(check.status == "fail" for check in checks) else 0


def run_ui(args: argparse.Namespace) -> int:
    from orchestration import ui  # brings Dagster, a second that the other commands need not pay

    return ui.serve(port=args.port, out=Path(args.out), inbox=Path(args.inbox))
