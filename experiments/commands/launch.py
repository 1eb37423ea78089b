"""Turns the arguments of `zo run` (launch.py) into an exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from omegaconf import DictConfig, OmegaConf

from experiments.config.combinations import missing_packages
from experiments.config.compose import compose, groups
from experiments.config.describe import described
from experiments.config.expand import MAX_RUNS
from experiments.config.own_files import FLAG, config_dir
from experiments.config.problems import Problem, did_you_mean, listing, split
from experiments.config.run_config import RunConfig
from experiments.display.console import new_console, outliving_output
from experiments.display.warned import spoken_warnings
from experiments.rundir.code_places import typed_command
from zo.version import version

FLAGS = (
    "--help",
    "--version",
    "--cfg",
    "--resolve",
    "--package",
    "--info",
    "--config-dir",
    "--rerun",
    "--dry-run",
    "--smoke",
    "--name",
    "--trials",
    "--multirun",
)
VALUED = ("--cfg", "--package", "--name", "--trials", FLAG)  # flags that take a value
SHORT = {"-h": "--help", "-c": "--cfg", "-p": "--package", "-m": "--multirun"}

COMMANDS = {
    "run": "fine-tune: run model=tiny-clm task=sentiment optimizer=fzoo; --help lists every option",
    "sweep": "many runs: sweep optimizer=mezo,fzoo seed=0,1,2, or a file of sweeps/",
}

HELP = """\
zo {version}: fine-tune a language model with forward passes.

  {run} [group=option ...] [key=value ...]

  --cfg job     print the composed configuration and stop; with --resolve every default and reference filled in,
                with --package KEY one part of it
  --info        print the version, the folders, and the files that the configuration is made of, and stop
  --config-dir FOLDER
                your own files, in groups as in conf/: FOLDER/optimizer/mine.yaml is optimizer=mine; else that of
                ZO_CONFIG_DIR, else ~/.config/zo
  -m            run every combination of the values given: optimizer=mezo,fzoo seed=0,1,2; or of a file:
                -m sweeps/FILE.yaml, which sweep=FILE says too
  --dry-run     check everything and show what would run
  --smoke       one step of each run
  --name NAME   what the sweep's folder is called
  --trials N    search: N trials of optimizer.lr=tag(log,interval(1e-6,1e-3)) and the like, by the metric on dev
  --rerun       begin again although the run's folder holds a run
  --version     print the version
  --help        this text, for the choices on the same command line

Groups, one file of conf/ each:
{groups}

Keys, with their values for these choices, and what they take:

{config}
README.md shows first runs, docs/architecture.md how it works, and each file of conf/ says what its keys mean.
"""


@dataclass
class Request:
    """The flags of the command line; everything else on it is an override."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def command(argv: Sequence[str]) -> int:
    """Performs run or sweep, the first of these words, with the others as launch.py has them."""
    return main([*(["-m"] if argv[0] == "sweep" else []), *argv[1:]])


def main(argv: Sequence[str]) -> int:
    """Prints help or a configuration, lists problems, or runs."""
    request = _read(argv)
    if "--version" in request.flags:
        return _say(f"zo {version()}\n")
    with config_dir(request.values.get(FLAG)):
        return _perform(request)


def _perform(request: Request) -> int:
    if _many(request):
        return _sweep(request)
    composed = compose(request.overrides)
    problems = request.problems + composed.problems
    if "--help" in request.flags and composed.tree is not None:
        _say(_help(composed.tree))
        return _refuse(problems) if problems else 0
    if not request.flags & {"--cfg", "--info", "--help"}:
        problems += missing_packages(composed.parts)
    if problems or composed.tree is None or composed.config is None:
        return _refuse(problems)
    if "--info" in request.flags:
        from experiments.commands.info import info

        return _say(info(request.overrides, composed.config))
    if composed.config.launcher.name != "local" and "--cfg" not in request.flags:
        return _sweep(request)
    if "--cfg" in request.flags:
        return _show(request, composed.tree, composed.config)
    return _run(composed.config, rerun="--rerun" in request.flags)


def _read(argv: Sequence[str]) -> Request:
    """Flags apart from overrides."""
    request = Request()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            request.overrides.append(word)
            continue
        name, _, value = word.partition("=")
        name = SHORT.get(name, name)
        if name not in FLAGS and value and _is_key(name[2:]):
            request.overrides.append(word[2:])  # as W&B's agents write overrides
            continue
        if name not in FLAGS:
            flags = [*FLAGS[:-1], *SHORT]
            if not value and rest and _is_value(rest[0]):
                word = f"{word} {rest.pop(0)}"  # of the flag that there is not
            request.problems.append(Problem(word, f"There is no such flag.{did_you_mean(name, flags)}"))
            continue
        if value and name not in VALUED:
            request.problems.append(Problem(word, f"{name} takes no value."))
        elif name in VALUED:
            value = value or (rest.pop(0) if rest and not rest[0].startswith("-") else "")
            request.values[name] = value
            if not value and name != "--cfg":
                request.problems.append(Problem(word, f"{name} takes a value."))
            if name == "--cfg" and value != "job":
                request.problems.append(
                    Problem(f"{word} {value}".strip(), "--cfg takes job, the run's configuration.")
                )
        request.flags.add(name)
    if request.flags & {"--resolve", "--package"} and "--cfg" not in request.flags:
        request.problems.append(Problem("--resolve, --package", "These say how --cfg job prints; add it."))
    return request


def _is_key(name: str) -> bool:
    """Returns whether a flag's name is that of a group or begins as keys do; compose says what is wrong with it."""
    return name.partition(".")[0] in {*groups(), *(spec.name for spec in fields(RunConfig))}


def _is_value(word: str) -> bool:
    """Returns whether a word can only be the value of the flag before it."""
    return "=" not in word and not word.startswith(("-", "+", "~")) and not _is_file(word)


def _many(request: Request) -> bool:
    """Returns whether the launchers take this: -m, a file of sweeps/, or --dry-run."""
    sweep_flags = request.flags & {"--multirun", "--dry-run", "--smoke", "--name", "--trials"}
    return bool(sweep_flags) or any(text.startswith("sweep=") for text in request.overrides)


def _sweep(request: Request) -> int:
    """Checks every run, then launches them."""
    files = [text for text in request.overrides if text.startswith("sweep=") or _is_file(text)]
    wrong = [*request.problems]
    if extra := request.flags & {"--cfg", "--help", "--info"}:
        wrong.append(
            Problem(
                ", ".join(sorted(extra)), "A sweep has no single configuration: --dry-run lists its runs."
            )
        )
    wrong += [Problem(text, "One file a sweep; this is another.") for text in files[1:]]
    trials, name = request.values.get("--trials", ""), request.values.get("--name", "")
    if trials and not (trials.isdecimal() and 1 <= int(trials) <= MAX_RUNS):
        wrong.append(Problem(f"--trials {trials}", f"It takes a whole number of 1 to {MAX_RUNS:,}."))
    if name and not re.fullmatch(r"\w[\w.+=-]*", name):
        what = "It names a folder below paths.runs/sweeps: letters, digits and . _ - + =, no blanks and no slashes."
        wrong.append(Problem(f"--name {name}", what))
    from experiments.launching.check import Asked, check

    sweep_request = Asked(
        overrides=[text for text in request.overrides if text not in files],
        file=files[0].removeprefix("sweep=") if files else None,
        name=name or None,
        dry="--dry-run" in request.flags,
        smoke="--smoke" in request.flags,
        rerun="--rerun" in request.flags,
        trials=int(trials) if trials.isdecimal() else None,
    )
    checked = check(sweep_request)
    checked.problems[:0] = wrong
    if checked.problems or not checked.runs:  # what only torch can tell is listed when this is mended
        return _refuse(checked.problems)

    def launch() -> int:
        from experiments.commands.sweep import sweep  # late: torch and transformers take seconds

        return sweep(sweep_request, checked)

    return _said(launch)


def _is_file(text: str) -> bool:
    return "=" not in text and text.endswith((".yaml", ".yml"))


def _run(config: RunConfig, rerun: bool) -> int:
    """Runs, or shows the result that is there."""
    from experiments.commands import preflight

    def launch() -> int:
        if problems := preflight.missing(config):
            return _refuse([Problem(*split(line)) for line in problems])
        if not rerun and (ended_run := preflight.ended(config)) is not None:
            from experiments.display.progress import show_ended

            show_ended(new_console(), *ended_run)
            preflight.tidy(config, ended_run[1])
            return 0
        from experiments.training.run import run  # late, because torch and transformers take seconds

        return run(config, rerun=rerun)

    return _said(launch)


def _said(launch: Callable[[], int]) -> int:
    """Its exit code; refusals of the program are a message, anything unexpected keeps its traceback."""
    with outliving_output(), spoken_warnings():
        return _answered(launch)


def _answered(launch: Callable[[], int]) -> int:
    from zo.errors import ConfigError, DataError, ZOError

    try:
        return launch()
    except (ConfigError, DataError) as error:
        return _refuse([Problem(*split(line)) for line in str(error).splitlines()])
    except ZOError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1


def _show(request: Request, tree: DictConfig, config: RunConfig) -> int:
    """Prints the configuration (--cfg job): as composed, or with --resolve as the run sees it."""
    shown = OmegaConf.create(config.as_dict()) if "--resolve" in request.flags else tree
    package = request.values.get("--package")
    if package:
        part = OmegaConf.select(shown, package)
        if part is None:
            return _refuse([Problem(f"--package {package}", "The configuration has no such part.")])
        return _say(OmegaConf.to_yaml(part) if OmegaConf.is_config(part) else f"{part}\n")
    return _say(OmegaConf.to_yaml(shown))


def _help(tree: DictConfig) -> str:
    width = max(len(name) for name in groups())
    lines = [f"  {name:<{width}}  {' '.join(options)}" for name, options in groups().items() if options]
    return HELP.format(
        version=version(), run=typed_command("run"), groups="\n".join(lines), config=described(tree)
    )


def _refuse(problems: Sequence[Problem]) -> int:
    sys.stderr.write(listing(problems) + "\n")
    return 2


def _say(text: str) -> int:
    sys.stdout.write(text)
    return 0
