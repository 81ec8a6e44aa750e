"""`sdft train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sdft.cli.common import new_app
from sdft.cli.output import deliver
from sdft.cli.settings_line import CONTEXT, Page, read_or_help

if TYPE_CHECKING:
    from sdft.jobs.train import TrainResult

PAGE = Page(
    name="train",
    summary="Fine-tunes the model that CONFIG names on the images that it names. Every setting is"
    " an option too. The command line of sd-scripts' fine_tune.py works as it is.",
)

app = new_app()


@app.command(name="train", add_help_option=False, context_settings=CONTEXT)
def command(ctx: typer.Context) -> None:
    asked = read_or_help(PAGE, ctx.args)
    if asked is None:
        return
    config = asked.load(for_training=True)

    from sdft.cli.shown_line import shown_line
    from sdft.cli.trackers import trackers_of
    from sdft.jobs.train import run_train
    from sdft.jobs.training.choice import without
    from sdft.views.console import console_view
    from sdft.views.fanout import Fanout
    from sdft.views.record import RunRecorder

    # How it was started the first time is not how it goes on.
    words = without(ctx.args, "resume", "overwrite")
    recorder = RunRecorder()
    trackers = trackers_of(config)
    with console_view(quiet=asked.output.quiet) as console:
        emit = Fanout([recorder, console, trackers])
        trackers.report_to(emit)
        try:
            result = run_train(
                config,
                command=shown_line(["sdft", "train", *words]),
                emit=emit,
                recorder=recorder,
            )
        finally:
            trackers.close()
            recorder.close()
    deliver(result.as_json(), _words(result), asked.output)


def _words(result: TrainResult) -> str:
    loss = "" if result.loss is None else f", mean loss of the last epoch {result.loss:.4f}"
    return (
        f"{result.steps} steps, {result.epochs} epochs{loss}\n"
        f"checkpoint  {result.checkpoint}\n"
        f"run folder  {result.run}"
    )
