"""The command line `sae-checks COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sae_checks.commands import accept, calibrate, explain, history, listing, merge, plan, report
from sae_checks.release import completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of `sae-checks`."""

    name: str
    summary: str
    """one line of `sae-checks --help`."""
    example: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = (
    Command(
        name="list",
        summary="list the named releases, or the SAEs of one release",
        example="sae-checks list gpt2-small-res-jb --sae-id 'blocks.[0-3].*'",
        add=listing.add,
        run=listing.run,
    ),
    Command(
        name="report",
        summary="write the page, the summary or a model card of a record",
        example="sae-checks report out/record.json --format model-card --out card/",
        add=report.add,
        run=report.run,
    ),
    Command(
        name="explain",
        summary="print why SAEs are red",
        example="sae-checks explain out/record.json 'blocks.2*'",
        add=explain.add,
        run=explain.run,
    ),
    Command(
        name="calibrate",
        summary="propose limits from a record, for a person to review",
        example="sae-checks calibrate out/record.json --out limits.toml",
        add=calibrate.add,
        run=calibrate.run,
    ),
    Command(
        name="accept",
        summary="take a run that is worse as the new baseline",
        example="sae-checks accept out/ --reason 'trained on cleaner text'",
        add=accept.add,
        run=accept.run,
    ),
    Command(
        name="compare",
        summary="compare two runs; exit 1 if a check has become worse",
        example="sae-checks compare before/record.json after/record.json",
        add=history.add_compare,
        run=history.compare,
    ),
    Command(
        name="history",
        summary="list the runs that --sae-history has kept",
        example="sae-checks history runs/ my-saes",
        add=history.add_history,
        run=history.history,
    ),
    Command(
        name="trend",
        summary="show how the measures of a release change over its runs",
        example="sae-checks trend runs/ my-saes --html trend.html",
        add=history.add_trend,
        run=history.trend,
    ),
    Command(
        name="export",
        summary="convert a record for another tool",
        example="sae-checks export out/record.json --format bencher",
        add=history.add_export,
        run=history.export,
    ),
    Command(
        name="plan",
        summary="print shards, revision and cache key for a workflow",
        example="sae-checks plan --shards 4 -- --sae-release=my-org/my-saes",
        add=plan.add,
        run=plan.run,
    ),
    Command(
        name="merge",
        summary="merge the records of shards, and judge the whole",
        example="sae-checks merge shard-*/record.json --out record.json",
        add=merge.add,
        run=merge.run,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit status: 4, as in pytest, if it cannot be carried out."""
    parser = argparse.ArgumentParser(
        prog="sae-checks",
        usage="sae-checks COMMAND ...",
        description="Reads what `pytest --sae-release=NAME --sae-out=DIR` has judged.",
        epilog="sae-checks COMMAND --help has the options of a command, and an example.",
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND ...", prog="sae-checks"
    )  # TRAP: argparse breaks the line of the longest command unless the metavar is two characters longer
    for command in COMMANDS:
        own = commands.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add(own)
        own.set_defaults(run=command.run)
    completion.complete(parser)
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        parser.print_help(sys.stderr)
        return 2
    asked = parser.parse_args(given)
    return int(asked.run(asked))
