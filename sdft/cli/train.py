"""`sdft train`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sdft.cli.argv import FLAG, Option
from sdft.cli.common import new_app
from sdft.cli.output import deliver
from sdft.cli.settings_line import CONTEXT, Asked, Page, read_or_help
from sdft.errors import UserError

if TYPE_CHECKING:
    from sdft.config.load import Config
    from sdft.jobs.train import TrainResult

PAGE = Page(
    name="train",
    summary="Fine-tunes the model that CONFIG names on the images that it names. Every setting is"
    " an option too. The command line of sd-scripts' fine_tune.py works as it is.",
    own=(
        Option(
            name="print_config",
            takes=FLAG,
            group="output of this command",
            help="Print the settings that would count, as TOML, and end.",
            hyphens=True,
        ),
        Option(
            name="output_config",
            takes=FLAG,
            group="output of this command",
            help="Write them to the file that --config_file names, and end.",
        ),
    ),
)

app = new_app()


@app.command(name="train", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    if asked.own.get("output_config"):
        _write_config(asked)
        return
    if asked.own.get("print_config"):
        from sdft.config.write import in_ascii

        text = _config_text(asked)
        is_utf8 = "utf" in (sys.stdout.encoding or "").lower()
        print(text if is_utf8 else in_ascii(text), end="")
        return
    config = asked.load(for_training=True)

    from sdft.cli.processes import run_here_or_apart
    from sdft.jobs.training.choice import without
    from sdft.processes import own_place

    # How it was started the first time is not how it goes on.
    words = without(ctx.args, "resume", "overwrite")
    if run_here_or_apart(config, ctx, again=[*words, "--resume", "auto"], output=asked.output):
        return
    if not own_place().is_main:
        _take_part(config)
        return
    _train(asked, config, words)


def _take_part(config: Config) -> None:
    """Train as another process than the main one: nothing is shown or recorded here."""
    from sdft.events import ignore
    from sdft.jobs.train import run_train
    from sdft.views.record import RunRecorder

    run_train(config, command="", emit=ignore, recorder=RunRecorder())


def _train(asked: Asked, config: Config, words: list[str]) -> None:
    from sdft.cli.shown_line import shown_line
    from sdft.cli.trackers import trackers_of
    from sdft.cli.uploads import uploads_of
    from sdft.jobs.train import run_train
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout
    from sdft.views.record import RunRecorder

    recorder = RunRecorder()
    trackers = trackers_of(config)
    uploads = uploads_of(config.training)
    with console_view(quiet=asked.output.quiet) as console:
        emit = Fanout([recorder, console, trackers, uploads])
        trackers.report_to(emit)
        uploads.report_to(emit)
        try:
            result = run_train(
                config,
                command=shown_line(["sdft", "train", *words]),
                emit=emit,
                recorder=recorder,
            )
            uploads.finish()
        finally:
            trackers.close()
            recorder.close()
    deliver(result.as_json(), _words(result), asked.output)


def _config_text(asked: Asked) -> str:
    """Return the resolved settings; of a preset alone, its file with the comments.

    Raises: UserError.
    """
    from sdft.config.preset import PRESETS, preset_text
    from sdft.config.write import resolved_toml

    if asked.config is None and asked.settings.keys() == {"preset"} and not asked.problems:
        name = str(asked.settings["preset"])
        if name in PRESETS:
            return preset_text(name)
    return resolved_toml(asked.load())


def _write_config(asked: Asked) -> None:
    """Write the resolved settings to a new file.

    Raises: UserError where no file is named or there is one.
    """
    from sdft.files import write_text

    named = asked.settings.get("config_file")
    if not named:
        raise UserError(what="output_config needs config_file", fix="add --config_file NEW.toml")
    path = Path(str(named))
    path = path if path.suffix else path.with_suffix(".toml")
    if path.exists():
        raise UserError(
            what="this file is there already", where=str(path), fix="name another in --config_file"
        )
    settings = {name: value for name, value in asked.settings.items() if name != "config_file"}
    write_text(path, _config_text(replace(asked, settings=settings)))
    print(path)


def _words(result: TrainResult) -> str:
    loss = "" if result.loss is None else f", mean loss of the last epoch {result.loss:.4f}"
    return (
        f"{result.steps} steps, {result.epochs} epochs{loss}\n"
        f"checkpoint  {result.checkpoint}\n"
        f"run folder  {result.run}"
    )
