"""Draws `--help` from declarations, with as little of rich as that needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from sdft.cli.argv import FLAG, VALUES, Option

_NAME_COLUMN = 32
"""Where the sentences begin; longer options have theirs on the next line."""


def print_root_help(commands: Mapping[str, str]) -> None:
    """Print the help of `sdft` itself."""
    console = _console()
    console.print(Text("Fine-tunes Stable Diffusion 1.x and 2.x on your own pictures."))
    console.print()
    console.print(Text.assemble("Usage: ", ("sdft COMMAND ...", "bold")))
    console.print()
    console.print(Text("Commands", style="bold"))
    width = max(map(len, commands)) + 4
    for name, summary in commands.items():
        _print_row(console, name, summary, "", width)
    console.print()
    console.print(Text("Options of every command", style="bold"))
    for name, summary in (
        ("--help", "what a command does and takes"),
        ("--debug", "where an unexpected error came from"),
        ("--version", "print the version"),
    ):
        _print_row(console, name, summary, "", width)
    console.print()
    console.print(Text("Start with: sdft demo"))


def print_command_help(
    *,
    name: str,
    summary: str,
    usage: str,
    words: Sequence[tuple[str, str]],
    options: Sequence[Option],
    everything: bool,
    ending: str,
) -> None:
    """Print the help of a command whose options are settings.

    `words` are the words it takes besides options; `everything` shows all options, not only the
    common ones; options come in groups, in the order in which the groups first appear.
    """
    console = _console()
    console.print(Text.assemble("Usage: ", (f"sdft {name} {usage}", "bold")))
    console.print()
    console.print(Text(summary))
    console.print()
    for word, sentence in words:
        _print_row(console, word, sentence, "", _NAME_COLUMN)
    for group, members in _grouped(options, everything):
        console.print()
        console.print(Text(group, style="bold"))
        for option in members:
            _print_row(console, _heading(option), option.help, option.notes, _NAME_COLUMN)
    console.print()
    console.print(Text(ending))


def _console() -> Console:
    return Console(highlight=False, emoji=False)


def _grouped(options: Iterable[Option], everything: bool) -> list[tuple[str, list[Option]]]:
    groups: dict[str, list[Option]] = {}
    for option in options:
        if everything or option.common:
            groups.setdefault(option.group, []).append(option)
    return list(groups.items())


def _heading(option: Option) -> str:
    if option.takes == FLAG:
        return option.spelling
    metavar = f"{option.metavar} ..." if option.takes == VALUES else option.metavar
    return f"{option.spelling} {metavar}"


def _print_row(console: Console, name: str, sentence: str, notes: str, width: int) -> None:
    # A table of rich would do the same at three times the cost for 170 rows.
    room = max(console.width - width, 20)
    words = [(word, "") for word in sentence.split()] + [(word, "dim") for word in notes.split()]
    lines: list[Text] = [Text()]
    for word, style in words:
        if lines[-1] and lines[-1].cell_len + 1 + len(word) > room:
            lines.append(Text())
        lines[-1].append(f" {word}" if lines[-1] else word, style=style)
    head = Text(f"  {name}", style="cyan")
    if head.cell_len >= width:
        console.print(head)
        head = Text()
    head.pad_right(width - head.cell_len)
    console.print(head + lines[0], soft_wrap=True)
    for line in lines[1:]:
        console.print(Text(" " * width) + line, soft_wrap=True)
