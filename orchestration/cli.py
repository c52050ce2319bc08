"""The command line: parse, check, call one function of the room that does the work, print a short table.

Exit status: 0 all well, 1 the job failed or some input did (see `--allow-failures`), 2 wrong use, 130 stopped by Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from orchestration import commands
from orchestration.commands import WrongUse
from orchestration.terminal import errors

POLICIES_HELP = "name of a shipped policy (demo, pretrain-256, pretrain-768, finetune) or path of a YAML file"
SET_HELP = "override one value of the policies, e.g. gates.motion.min=1.5; may be repeated"


class Parser(argparse.ArgumentParser):
    """argparse with one clear sentence instead of a usage block before an error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except WrongUse as error:
        errors.print(f"reelmill: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        errors.print("reelmill: stopped; the same command goes on from here", markup=False)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RuntimeError, OSError) as error:
        if os.environ.get("REELMILL_TRACEBACK"):
            raise
        errors.print(f"reelmill: {error} (REELMILL_TRACEBACK=1 shows where)", style="red", markup=False)
        return 1


def _parser() -> Parser:
    parser = Parser(prog="reelmill", description="Raw video in, curated WebDataset shards out.")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    curate = _command(
        verbs, "curate", commands.run_curate, "measure, decide and shard; safe to run again: it continues"
    )
    curate.add_argument("sources", nargs="*", metavar="SOURCE", help="files or folders; none: the inputs known already")
    curate.add_argument("--out", required=True, help="output folder, or a URI that Arrow or fsspec understands")
    curate.add_argument("--batch", default="default", help="name of the ingest batch (default: default)")
    _policy_options(curate, many=True)
    _machine_options(curate)
    curate.add_argument("--retry-failures", action="store_true", help="try again what failed for a passing reason")
    curate.add_argument(
        "--allow-failures",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="share of failed inputs, 0..1, that still exits 0",
    )

    recut = _command(verbs, "recut", commands.run_recut, "decide again from stored measurements; prints what changed")
    recut.add_argument("out")
    _policy_options(recut, many=False)

    explain = _command(verbs, "explain", commands.run_explain, "everything known of a clip or a video")
    explain.add_argument("out")
    explain.add_argument("id", help="clip_id or video_id, or the beginning of one")
    _policy_options(explain, many=True)

    report = _command(verbs, "report", commands.run_report, "write the HTML report")
    report.add_argument("out")
    _policy_options(report, many=True)

    shards = verbs.add_parser("shards", help="look into finished shards").add_subparsers(
        required=True, metavar="ACTION"
    )
    for name, function, about in (
        ("verify", commands.run_shards_verify, "read every sample back: checksums, counts, frames"),
        ("stats", commands.run_shards_stats, "samples, seconds and bytes by bucket"),
    ):
        action = _command(shards, name, function, about)
        action.add_argument("out")
        action.add_argument("--policy", help="only this policy's shards (default: all)")
        action.add_argument(
            "--workers", type=int, default=os.cpu_count() or 1, help="shards at a time (default: one a core)"
        )

    weights = verbs.add_parser("weights", help="model weights and sample videos").add_subparsers(
        required=True, metavar="ACTION"
    )
    _command(
        weights,
        "list",
        commands.run_weights_list,
        "what there is, what for, under which licence, and whether it is here",
    )
    verify = _command(weights, "verify", commands.run_weights_verify, "hold what is here against its digest")
    verify.add_argument("names", nargs="*")
    pull = _command(
        weights, "pull", commands.run_weights_pull, "fetch by name; `samples` is all sample videos, `all` is everything"
    )
    pull.add_argument("names", nargs="+")
    pull.add_argument("--into", metavar="FOLDER", help="also copy the fetched files into this folder")

    ui = _command(verbs, "ui", commands.run_ui, "the Dagster web interface and daemon, on loopback")
    ui.add_argument("--port", type=int, default=3000)
    ui.add_argument("--out", default="out/dagster", help="where its assets are written")
    ui.add_argument("--inbox", default="out/inbox", help="folder whose sub-folders are ingest batches")

    doctor = _command(verbs, "doctor", commands.run_doctor, "what works on this machine")
    doctor.add_argument("--out", default=".", help="the output folder to look at (default: here)")
    return parser


def _command(
    verbs: "argparse._SubParsersAction[Parser]", name: str, function: Callable[..., int], about: str
) -> Parser:
    parser = verbs.add_parser(name, help=about, description=about)
    parser.set_defaults(command=function)
    return parser


def _policy_options(parser: Parser, many: bool) -> None:
    parser.add_argument(
        "--policy", dest="policies", action="append", metavar="P", required=not many, help=POLICIES_HELP
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)


def _machine_options(parser: Parser) -> None:
    parser.add_argument("--engine", choices=["local"], default="local")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="videos at a time (default: one a core)"
    )
    parser.add_argument("--threads", type=int, default=1, help="decoder threads for each video (default: 1)")
    parser.add_argument("--memory-gib", type=float, default=4.0, help="memory that one video may take (default: 4)")
    parser.add_argument(
        "--stall-s", type=float, default=30.0, help="seconds without progress before a video is given up"
    )


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
