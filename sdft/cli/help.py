"""Draws `--help` from declarations, with as little of rich as that needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from sdft.cli.argv import FLAG, VALUES, Option

_NAME_COLUMN = 32
"""Where the sentences begin; longer options have theirs on the next line."""


class Sheet:
    """Text with styles, printed as a whole.

    A table of rich, or a print a row, would do the same at several times the cost for 170 rows.
    Everything that comes here is ASCII, so a character is a column.
    """

    def __init__(self) -> None:
        self._console = Console(highlight=False, emoji=False)
        self._parts: list[str | tuple[str, str]] = []

    def line(self, text: str = "", style: str = "") -> None:
        """Add text, broken into lines at spaces."""
        for row in _broken([(word, style) for word in text.split()], self._console.width):
            self._parts += [*row, "\n"]

    def text(self, text: str) -> None:
        """Add text as it stands."""
        self._parts.append(text)

    def row(self, name: str, sentence: str, notes: str, width: int) -> None:
        """Add a name and, from column `width` on, what it means."""
        words = [(word, "") for word in sentence.split()]
        words += [(word, "dim") for word in notes.split()]
        head = f"  {name}"
        gap = width - len(head)
        self._parts.append((head, "cyan"))
        self._parts.append(" " * gap if gap > 0 else "\n" + " " * width)
        for number, row in enumerate(_broken(words, max(self._console.width - width, 20))):
            self._parts += [" " * width if number else "", *row, "\n"]

    def print(self) -> None:
        self._console.print(Text.assemble(*self._parts, end=""), soft_wrap=True, end="")


def print_root_help(commands: Mapping[str, str]) -> None:
    """Print the help of `sdft` itself, without the last line end, which Typer adds."""
    sheet = Sheet()
    sheet.line("Fine-tunes Stable Diffusion 1.x and 2.x on your own pictures.")
    sheet.line()
    sheet.line("Usage: sdft COMMAND ...")
    sheet.line()
    sheet.line("Commands", "bold")
    width = max(map(len, commands)) + 4
    for name, summary in commands.items():
        sheet.row(name, summary, "", width)
    sheet.line()
    sheet.line("Options of every command", "bold")
    sheet.row("--help", "what a command does and takes", "", width)
    sheet.row("--debug", "where an unexpected error came from", "", width)
    sheet.row("--version", "print the version", "", width)
    sheet.line()
    sheet.text("Start with: sdft demo")
    sheet.print()


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
    sheet = Sheet()
    sheet.line(f"Usage: sdft {name} {usage}")
    sheet.line()
    sheet.line(summary)
    sheet.line()
    for word, sentence in words:
        sheet.row(word, sentence, "", _NAME_COLUMN)
    for group, members in _grouped(options, everything):
        sheet.line()
        sheet.line(group.capitalize(), "bold")
        for option in members:
            sheet.row(_heading(option), option.help, option.notes, _NAME_COLUMN)
    sheet.line()
    sheet.line(ending)
    sheet.print()


def _grouped(options: Iterable[Option], everything: bool) -> list[tuple[str, list[Option]]]:
    groups: dict[str, list[Option]] = {}
    for option in options:
        if not option.hidden and (everything or option.common):
            groups.setdefault(option.group, []).append(option)
    return list(groups.items())


def _heading(option: Option) -> str:
    if option.takes == FLAG:
        return option.spelling
    metavar = f"{option.metavar} ..." if option.takes == VALUES else option.metavar
    return f"{option.spelling} {metavar}"


def _broken(words: Sequence[tuple[str, str]], room: int) -> list[list[tuple[str, str]]]:
    """Return styled words as rows of at most `room` columns, at least one row."""
    rows: list[list[tuple[str, str]]] = [[]]
    used = 0
    for word, style in words:
        if used and used + 1 + len(word) > room:
            rows.append([])
            used = 0
        # Words of one style become one part: fewer parts are drawn faster.
        space = " " if used else ""
        if rows[-1] and rows[-1][-1][1] == style:
            rows[-1][-1] = (rows[-1][-1][0] + space + word, style)
        else:
            rows[-1].append((space + word, style))
        used += len(space) + len(word)
    return rows
