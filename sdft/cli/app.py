"""The root of the `sdft` command.

A command's module is imported when the command is called, so that `sdft --help` stays fast. All
commands end here: what a person caused or can mend becomes a message and an exit code, anything
else one line that names the error, and `--debug` shows where it came from.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from sdft import __version__
from sdft.errors import EnvironmentFault, PeerLost, SaidElsewhere, SdftError, UnknownName, nearest

COMMANDS = {
    "wizard": "make the settings step by step, then start and watch the run",
    "guide": "how to use it, in English or Japanese",
    "demo": "the whole way: teach a tiny model a new shape; no network",
    "doctor": "what this machine has, what will be used, what is missing and how to get it",
    "caption": "captions beside the images, by BLIP, GIT or another model",
    "tag": "tags beside the images, by a WD14 tagger or DeepDanbooru",
    "metadata": "captions and tags into one file; clean, check, show, undo",
    "bucket": "plan the buckets; show the fate of every image",
    "words": "what the model will read in an epoch, image by image",
    "cache-latents": "encode the images once, to disk",
    "plan": "steps, time, disk and memory before a run; what to change so that it fits",
    "train": "fine-tune; also takes a fine_tune.py command line as it is",
    "watch": "the dashboard of a run, at work or ended",
    "ctl": "steer a run: pause, resume, save, sample, stop, set learning_rate=1e-5",
    "report": "one HTML file that shows a run",
    "runs": "the runs in a folder, with their state and last figures",
    "diff": "what differs between two runs",
    "prove-resume": "show that a resumed run is the run, on this machine",
    "sample": "pictures from a checkpoint",
    "convert": "a model in another form: one file or a diffusers folder, another precision",
    "verify": "what a model is, and whether it is whole",
    "bench": "how fast training is here, beside the bare minimum for the same work",
    "launch-template": "start files for many machines: Slurm, Kubernetes, accelerate",
    "import": "config.toml from a batch file or another program's settings",
}
"""Every command, in the order of the help. Its module is `sdft.cli.<name>`, its Typer `app`."""


def module_of(command: str) -> str:
    """Return a command's module; a word of the language gets a `_` behind it."""
    name = command.replace("-", "_")
    return f"sdft.cli.{name}_" if iskeyword(name) else f"sdft.cli.{name}"


class LazyCommands(TyperGroup):
    """Knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        if cmd_name not in COMMANDS:
            if cmd_name.startswith("-"):
                return None
            raise UnknownName(
                what=f'no command "{cmd_name}"',
                fix=nearest(cmd_name, list(COMMANDS)) or "see: sdft --help",
                key="no_command",
                values={"name": cmd_name},
            )
        return get_command(import_module(module_of(cmd_name)).app)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        from sdft.cli.help import print_root_help

        print_root_help(COMMANDS)


app = typer.Typer(
    cls=LazyCommands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Fine-tunes Stable Diffusion 1.x and 2.x on your own pictures."""
    if version:
        print(f"sdft {__version__}")
    elif ctx.invoked_subcommand is None:
        print(ctx.get_help())


HELP_WORDS = {"--help", "-h", "--help-all", "--help_all", "--version"}


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code. Prints; never raises but for `--debug`."""
    soften_streams()
    debug = "--debug" in argv
    words = [word for word in argv if word != "--debug"]
    if not HELP_WORDS & set(words):
        tame_libraries()
    try:
        get_command(app).main(args=words, prog_name="sdft")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return _nobody_reads()
    except Exception as error:  # noqa: BLE001 - the edge, where whatever happened is reported
        if debug:
            _print_traceback(error)
        return _report(error, words)
    return 0


def tame_libraries() -> None:
    """Let the libraries below speak of errors only (events say the rest) and wait in silence."""
    # Takes 20 ms; no help needs it.
    import logging

    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Threads that spin while they wait take the cores from those that work: beside other programs
    # a small model's step on a CPU takes four times as long. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def soften_streams() -> None:
    """Let a character that the console's code page lacks be shown as `\\u3042`, not raise."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _report(error: Exception, words: Sequence[str]) -> int:
    from sdft.cli.output import print_error, print_problems

    is_main = os.environ.get("RANK", "0") == "0"
    if isinstance(error, SaidElsewhere) and not (is_main and isinstance(error, PeerLost)):
        return error.exit_code
    if isinstance(error, SdftError):
        # One object on stdout: that of the cause, or of the run that goes on after a new start.
        print_problems(error, as_json="--json" in words and not isinstance(error, PeerLost))
        return error.exit_code
    if isinstance(error, OSError):
        # A disk, a share, a permission: whatever the code did with it, the machine said no.
        print_error(str(error), "run again with --debug to see where")
        return EnvironmentFault.exit_code
    print_error(
        f"{type(error).__name__}: {error}",
        "an error in sdft, not in what you asked for; run again with --debug to see where",
    )
    return 1


def _print_traceback(error: Exception) -> None:
    import traceback

    traceback.print_exception(error)


def _nobody_reads() -> int:
    # Python flushes stdout at its end and would complain there once more.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
