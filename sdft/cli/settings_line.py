"""The commands whose options are settings: their options, their help, their CONFIG.

`train`, `bucket`, `cache-latents` take the same settings, so that one command line, or one file,
serves all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdft.cli.argv import FLAG, LOOSE, VALUE, VALUES, Line, Option, read_line
from sdft.cli.output import Output
from sdft.errors import ConfigError, Problem, UserError

if TYPE_CHECKING:
    from sdft.config.load import Config
    from sdft.config.settings import Setting

CONTEXT: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    # Otherwise `--help` would be answered before the settings are known.
    "help_option_names": [],
}
"""What makes Typer hand over the words of a command line as they stand."""

OUTPUT_OPTIONS = (
    Option(
        name="json",
        takes=FLAG,
        group="output of this command",
        help="Print the result as one JSON object.",
    ),
    Option(
        name="json_out",
        metavar="FILE",
        group="output of this command",
        help="Write that object to a file.",
        hyphens=True,
    ),
    Option(name="quiet", takes=FLAG, group="output of this command", help="Show no progress."),
    Option(
        name="help", takes=FLAG, group="output of this command", help="Show the common settings."
    ),
    Option(
        name="help_all",
        takes=FLAG,
        group="output of this command",
        help="Show all settings.",
        hyphens=True,
    ),
)

_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is said of a command in its help."""

    name: str
    summary: str
    own: tuple[Option, ...] = ()
    """Options that are no settings."""
    groups: tuple[str, ...] = ()
    """Groups of settings that the short help shows; empty for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a command line asks for, read but not checked."""

    config: Path | None
    settings: Mapping[str, object]
    """Settings by the name that was given for them, as text."""
    own: Mapping[str, object]
    """Values of the command's own options."""
    output: Output
    problems: tuple[Problem, ...]
    """Every mistake of the line itself."""

    def load(self, *, for_training: bool = False, need_dataset: bool = True) -> Config:
        """Read CONFIG and check all settings.

        Raises: UserError with every mistake, those of the line first.
        """
        from sdft.config.load import load_config

        try:
            config = load_config(
                self.config,
                self.settings,
                Path.cwd(),
                for_training=for_training,
                need_dataset=need_dataset,
            )
        except ConfigError as error:
            if not self.problems:
                raise
            # A setting that seems to be missing may be the one that was misspelt on the line; what
            # points at a line of a file or at an option is wrong in any case.
            placed = [p for p in error.problems if re.search(r"^--|:\d+$", p.where)]
            raise UserError(problems=[*self.problems, *placed]) from error
        if self.problems:
            raise UserError(problems=self.problems)
        return config


def read_or_help(page: Page, words: Sequence[str]) -> Asked | None:
    """Read a command line; print the help and return None where that is what it asks for."""
    options = command_options(page)
    everything = "--help-all" in words or "--help_all" in words
    if everything or "--help" in words or "-h" in words:
        _print_help(page, options, everything)
        return None
    return _asked(page, read_line(words, (*options, *hidden_options(options))))


def command_options(page: Page) -> tuple[Option, ...]:
    """Return every option of a command: settings, then its own, then those of every command.

    An option of its own takes the place of a setting with the same name.
    """
    # pydantic looks through all installed packages for plugins of its own, which takes as long as
    # a third of all else here; sdft uses none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from sdft.config.dataset import dataset_settings
    from sdft.config.refused import REFUSED
    from sdft.config.settings import settings_of
    from sdft.config.training import TrainingSettings

    settings = [*settings_of(TrainingSettings), *dataset_settings()]
    options = {s.flag: _option_of(s, page.groups) for s in settings if s.name not in REFUSED}
    for own in page.own:
        options.pop(own.name, None)
    return (*options.values(), *page.own, *OUTPUT_OPTIONS)


def hidden_options(shown: Sequence[Option]) -> tuple[Option, ...]:
    """Return options that the help leaves out: what they mean is said where settings are checked.

    They are the names of sd-scripts that are refused or have no effect, and the names that keys
    have in files where the option is called otherwise.
    """
    from sdft.config.dataset import DatasetSettings, SubsetSettings
    from sdft.config.refused import NEEDLESS, REFUSED
    from sdft.config.settings import settings_of

    keys = [*settings_of(DatasetSettings), *settings_of(SubsetSettings)]
    takes = dict.fromkeys(REFUSED, LOOSE)
    takes |= {name: VALUE if name == "tokenizer_cache_dir" else FLAG for name in NEEDLESS}
    takes |= {key.name: FLAG if key.is_flag else VALUE for key in keys if key.name not in REFUSED}
    known = {option.name for option in shown}
    return tuple(
        Option(name=name, takes=kind, hidden=True)
        for name, kind in takes.items()
        if name not in known
    )


def _asked(page: Page, line: Line) -> Asked:
    own_names = {option.name for option in page.own}
    output_names = {option.name for option in OUTPUT_OPTIONS}
    json_out = line.values.get("json_out")
    return Asked(
        config=line.config,
        settings={
            name: value
            for name, value in line.values.items()
            if name not in own_names and name not in output_names
        },
        own={name: value for name, value in line.values.items() if name in own_names},
        output=Output(
            json=bool(line.values.get("json")),
            json_out=None if json_out is None else Path(str(json_out)),
            quiet=bool(line.values.get("quiet")),
        ),
        problems=line.problems,
    )


def _option_of(setting: Setting, groups: Sequence[str]) -> Option:
    takes = FLAG if setting.is_flag else VALUE
    # A size or a range is one text, `512,768`; only a list of texts takes several words.
    if setting.is_list and setting.type is str:
        takes = VALUES
    return Option(
        name=setting.flag,
        takes=takes,
        help=setting.help,
        group=setting.group,
        metavar=_metavar(setting),
        notes=_notes(setting),
        common=setting.common and (not groups or setting.group in groups),
    )


def _metavar(setting: Setting) -> str:
    if _choices_in_head(setting):
        return "|".join(setting.choices)
    if setting.choices:
        return "NAME"
    if setting.is_list and setting.type is not str:
        return "N,N" if setting.type is int else "X,X"
    return _METAVARS.get(setting.type, "TEXT")


def _choices_in_head(setting: Setting) -> bool:
    return 0 < len("|".join(setting.choices)) < 42 and not setting.open_choices


def _notes(setting: Setting) -> str:
    notes = []
    if setting.unit and not setting.is_flag:
        notes.append(setting.unit)
    # The largest whole number of a file is a limit that nobody needs to read.
    if setting.range and len(setting.range) < 30:
        notes.append(setting.range)
    if setting.choices and not _choices_in_head(setting):
        ending = " or a class path" if setting.open_choices else ""
        notes.append(", ".join(setting.choices) + ending)
    default = setting.default
    if default not in (None, "", (), False):
        words = ",".join(map(str, default)) if isinstance(default, tuple) else f"{default}"
        notes.append(f"default {'on' if default is True else words}")
    return f"[{'; '.join(notes)}]" if notes else ""


def _print_help(page: Page, options: Sequence[Option], everything: bool) -> None:
    from sdft.cli.help import print_command_help

    print_command_help(
        name=page.name,
        summary=page.summary,
        usage="[CONFIG] [--setting VALUE ...]",
        words=[("CONFIG", "A .toml or .json file of settings, or a dataset file.")],
        options=options,
        everything=everything,
        ending="Names may be cut short, and written with - or _. A setting that is on is turned"
        " off by --name=false."
        if everything
        else f"All settings: sdft {page.name} --help-all",
    )
