"""Reads the arguments of `python -m experiments <command>`, or `zo <command>` (experiments.program), and performs it.

run, sweep OVERRIDES  what launch.py does, and launch.py -m (experiments.commands.launch)
status, logs, cancel, retry RUNS
                      of a sweep's folder, of runs, or of a folder above them (experiments.commands.manage)
report RUNS           methods compared: tables here, or a page, figures and tables with --out DIR (experiments.report)
watch RUNS            several of them at once, while they run (experiments.watching)
replay RUN            rebuild the weights from the journal, without a forward pass, and compare digests
cut RUN               a journal cut before its damaged record, the old file kept, so that the run can go on
export RUN --out DIR  the same, and write them as a Hugging Face or PEFT folder
estimate OVERRIDES    memory and GPU-hours of the runs that launch.py would start with them; several values: a table
prefetch OVERRIDES    their models and data brought to this machine
expected OVERRIDES    what the papers print for them: experiment=fzoo/opt-13b task=boolq,wic (experiments.papers)
sync RUNS             runs given to W&B, TensorBoard or trackio after the fact (experiments.trackers)
dashboard [RUNS]      a W&B workspace and report that compare methods
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from experiments.display.first_word import first_word_of_command

if __name__ == "__main__":
    first_word_of_command(sys.argv[1:])

from experiments.commands import completion, doctor, launch, manage, report
from experiments.commands import sync as trackers
from experiments.commands import watch as watching
from experiments.commands.arguments import Parser, number_of, problems_in, run_folder
from experiments.config.own_files import FLAG, config_dir
from experiments.config.problems import Problem, did_you_mean, listing, one_of
from experiments.display.warned import spoken_warnings
from experiments.launching.states import find_runs
from experiments.rundir.code_places import typed_command
from zo.errors import ConfigError, DataError, ZOError
from zo.fields import LONGEST, Count, Range
from zo.version import version

TO_STEP = number_of(Annotated[int, Range(ge=0, le=LONGEST)])
AHEAD = {
    "estimate": "what runs will need: memory, GPUs, GPU-hours",
    "prefetch": "bring models and data here, for nodes without network",
    "expected": "what the papers print for such runs",
}


def main(argv: Sequence[str]) -> int:
    """0 done, 1 the weights differ or a run failed, 2 wrong input."""
    if argv and argv[0] in launch.COMMANDS:
        return launch.command(argv)
    parser, commands = parsers()
    if not argv:
        return _refuse([Problem("", f"No command is given. Commands: {one_of(commands)}.")])
    name, *words = argv
    if name not in commands and name not in ("-h", "--help", "--version"):
        kind = "flag" if name.startswith("-") else "command"
        near = did_you_mean(name, commands) or f" Commands: {one_of(commands)}."
        return _refuse([Problem(name, f"There is no such {kind}.{near}")])
    if name in commands and not {"-h", "--help"} & set(words):
        words, problems = commands[name].checked(words)
        if name in AHEAD:  # the overrides are part of the same list
            folder = next((word.partition("=")[2] for word in words if word.startswith(f"{FLAG}=")), None)
            with config_dir(folder):
                return _ahead(parser, name, words, problems)
        if problems:
            return _refuse(problems, name)
    request = parser.parse_args([name, *words])
    if request.command in completion.COMMANDS:
        return completion.perform(request, commands)
    if request.command == "doctor":
        return doctor.perform(request.seconds, request.json)
    with spoken_warnings():
        return _perform(request)


def parsers() -> tuple[argparse.ArgumentParser, Mapping[str, Parser]]:
    """Returns the parser of all commands, and each command's own."""
    parser = argparse.ArgumentParser(
        prog=typed_command(), description=f"zo {version()}: fine-tune language models with forward passes."
    )
    parser.add_argument("--version", action="version", version=f"zo {version()}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, words in launch.COMMANDS.items():
        commands.add_parser(name, help=words, add_help=False)  # reads its arguments itself
    replay = commands.add_parser("replay", help="rebuild the weights from the journal and compare digests")
    export = commands.add_parser("export", help="rebuild the weights from the journal and write them")
    cut = commands.add_parser("cut", help="cut a journal before its damaged record; the old file is kept")
    cut.add_argument("run", type=run_folder, help="a run's folder, the one with the file journal")
    for command in (replay, export):
        command.add_argument("run", type=run_folder, help="a run's folder, the one with the file journal")
        command.add_argument(
            "--allow", action="append", default=[], metavar="MODULE",
            help="a module of your own that the run's configuration may import; repeatable",
        )  # fmt: skip
        command.add_argument(
            "--steps",
            type=TO_STEP,
            metavar="N",
            help="weights after so many steps; default: the reported ones",
        )
    replay.add_argument(
        "--lengths", type=Path, help="JSON file to write with the length of every step (optimizer.record)"
    )
    export.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    for name, words in AHEAD.items():
        command = commands.add_parser(name, help=words)
        command.add_argument("overrides", nargs="*", help="as for run: model=opt-13b,opt-30b task=sst2")
        command.add_argument(FLAG, metavar="FOLDER", help="your own files, in groups as in conf/")
        if name == "estimate":
            command.add_argument(
                "--tokens",
                type=number_of(Count),
                metavar="N",
                help="of the longest row; default: by the task",
            )
            command.add_argument("--json", action="store_true", help="numbers instead of a table")
    manage.add(commands)
    report.add(commands)
    watching.add(commands)
    trackers.add(commands)
    completion.add(commands)
    doctor.add(commands)
    return parser, commands.choices


def _refuse(problems: Sequence[Problem], command: str = "") -> int:
    """Prints all problems in the one form that launch.py has too."""
    help_line = f"{typed_command(command)} --help shows what it takes."
    sys.stderr.write(listing(list(dict.fromkeys(problems)), "this command", help_line) + "\n")
    return 2


def _perform(request: argparse.Namespace) -> int:
    """Runs a command on existing runs."""
    try:
        if request.command in manage.COMMANDS:
            return manage.perform(request)
        if request.command == "report":
            return report.perform(request)
        if request.command == "watch":
            return watching.watch(lambda: find_runs(request.runs), request.once, request.every)
        if request.command in trackers.COMMANDS:
            return trackers.perform(request)
        from experiments.commands import replay  # late: torch and transformers take seconds

        if request.command == "replay":
            return replay.replay(request.run, request.steps, request.lengths, request.allow)
        if request.command == "cut":
            return replay.cut(request.run)
        return replay.export(request.run, request.steps, request.out, request.allow)
    except (ConfigError, DataError) as error:
        return _refuse(problems_in(error), request.command)
    except ZOError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _ahead(
    parser: argparse.ArgumentParser, command: str, words: Sequence[str], problems: Sequence[Problem]
) -> int:
    """Estimates, fetches or looks up for every configuration that the overrides name; all of them are checked first."""
    from experiments.config.compose import compose
    from experiments.config.expand import expand

    runs, wrong = expand([word for word in words if not word.startswith("--")])
    composed = [compose(run) for run in runs]
    problems = [*problems, *wrong, *(problem for each in composed for problem in each.problems)]
    if problems:
        return _refuse(problems, command)
    request = parser.parse_args([command, *words])
    configs = [each.config for each in composed if each.config is not None]
    try:
        with spoken_warnings():
            if command == "prefetch":
                from experiments.commands.prefetch import prefetch

                return prefetch(configs)
            if command == "expected":
                from experiments.commands import expected

                return expected.show(configs)
            from experiments.commands.estimate import show

            return show(configs, request.tokens, request.json)
    except (ConfigError, DataError) as error:
        return _refuse(problems_in(error), command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
