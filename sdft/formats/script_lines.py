"""The command lines in a batch file, a PowerShell script or a shell script.

In: the file's text and its kind. Out: each command as the words that the program would get, with
the variables that the file itself sets filled in. Nothing is run: conditions, loops and functions
are not followed, and a variable that the file does not set stays as it is written, to be reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BAT, PS1, SH = "bat", "ps1", "sh"

KINDS = {".bat": BAT, ".cmd": BAT, ".ps1": PS1, ".sh": SH, ".bash": SH, ".txt": SH}
"""By the file's ending."""

_CONTINUATION = {BAT: "^", PS1: "`", SH: "\\"}
_ESCAPE = {BAT: "^", PS1: "`", SH: "\\"}

_SETS = {
    BAT: re.compile(
        r'@?set\s+(?:"(?P<a>\w+)=(?P<av>[^"]*)"|(?P<b>\w+)=(?P<bv>.*))$', re.IGNORECASE
    ),
    PS1: re.compile(r"\$(?P<a>(?:env:)?\w+)\s*=\s*(?P<av>.*)$", re.IGNORECASE),
    SH: re.compile(r"(?:export\s+)?(?P<a>[A-Za-z_]\w*)=(?P<av>.*)$"),
}

_VARIABLE = {
    BAT: re.compile(r"%%|%(\w+)%|!(\w+)!"),
    PS1: re.compile(r"\$\{((?:env:)?\w+)\}|\$((?:env:)?\w+)", re.IGNORECASE),
    SH: re.compile(r"\$\{(\w+)(?:\[@\])?\}|\$(\w+)"),
}

_COMMENT = {
    BAT: re.compile(r"@?(rem\b|::)", re.IGNORECASE),
    PS1: re.compile(r"#"),
    SH: re.compile(r"#"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command as a program would get it."""

    words: tuple[str, ...]
    line: int
    """Where it begins, from 1."""
    unknown: tuple[str, ...] = ()
    """Variables in it that the file does not set, as they are written."""


@dataclass(slots=True)
class _Script:
    kind: str
    variables: dict[str, list[str]] = field(default_factory=dict)
    """Lower-case names in batch files and PowerShell; the words that each stands for."""

    def name(self, text: str) -> str:
        return text if self.kind == SH else text.lower().removeprefix("env:")


def read_commands(text: str, kind: str) -> tuple[Command, ...]:
    """Return the commands of a script; lines that only set variables are none."""
    script = _Script(kind)
    found = []
    for number, line in _whole_lines(text, kind):
        if _COMMENT[kind].match(line):
            continue
        match = _SETS[kind].match(line)
        if match is not None:
            _set(script, match)
            continue
        unknown: list[str] = []
        words = _words(line, script, unknown)
        if words:
            found.append(Command(words=tuple(words), line=number, unknown=tuple(unknown)))
    return tuple(found)


def _whole_lines(text: str, kind: str) -> Iterator[tuple[int, str]]:
    """Give each line joined with those that continue it, and the number of its first."""
    mark = _CONTINUATION[kind]
    parts: list[str] = []
    begin = 1
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        line = raw.rstrip()
        if not parts:
            begin = number
        elif _COMMENT[kind].match(line.strip()):
            # A comment between two parts of a line: people take options out this way.
            continue
        if line.endswith(mark) and not line.endswith(mark * 2):
            parts.append(line[:-1])
            continue
        # A list over several lines.
        opened = " ".join([*parts, line])
        if kind != BAT and re.search(r"=\s*@?\([^)]*$", opened):
            parts.append(line)
            continue
        parts.append(line)
        whole = " ".join(parts).strip()
        parts = []
        if whole:
            yield begin, whole
    if parts:
        yield begin, " ".join(parts).strip()


def _set(script: _Script, match: re.Match[str]) -> None:
    groups = match.groupdict()
    name = groups["a"] or groups["b"]
    value = (groups["av"] if groups["a"] else groups["bv"]) or ""
    if script.kind == BAT:
        # The rest of the line as it stands, quotes too.
        script.variables[script.name(name)] = [_filled(value.strip(), script, [])]
        return
    listed = re.fullmatch(r"@?\((.*)\)", value.strip(), re.DOTALL)
    inner = listed[1] if listed else value.strip()
    if script.kind == PS1:
        # What stands behind a value, such as `# a note`, is no part of it; commas part a list.
        inner = _without_comment(inner)
        inner = inner.replace(",", " ") if listed else inner
    words = _words(inner, script, [])
    script.variables[script.name(name)] = words if listed else [" ".join(words)]


def _without_comment(text: str) -> str:
    quote = ""
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and (position == 0 or text[position - 1].isspace()):
            return text[:position].rstrip()
    return text


def _filled(text: str, script: _Script, unknown: list[str]) -> str:
    """Return text with the variables of the file in place of their names."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "%%":
            # In a batch file, the way to write a percent sign.
            return "%"
        name = script.name(match[1] or match[2])
        if name in script.variables:
            return " ".join(script.variables[name])
        unknown.append(match[0])
        return match[0]

    return _VARIABLE[script.kind].sub(value, text)


def _words(line: str, script: _Script, unknown: list[str]) -> list[str]:
    """Return a line's words; quotes are taken off, variables filled in."""
    if script.kind == BAT:
        # cmd.exe puts variables in before it looks at quotes.
        return _split_batch(_filled(line, script, unknown).lstrip("@"))
    splitter = _Splitter(script, unknown)
    return splitter.split(line)


def _split_batch(line: str) -> list[str]:
    words: list[str] = []
    word, is_open, quoted = "", False, False
    position = 0
    while position < len(line):
        letter = line[position]
        position += 1
        if letter == "\\" and line[position : position + 1] == '"' and line[position + 1 :].strip():
            word, is_open, position = word + '"', True, position + 1
        elif letter == '"':
            quoted, is_open = not quoted, True
        elif letter == "^" and not quoted and position < len(line):
            word, is_open, position = word + line[position], True, position + 1
        elif letter.isspace() and not quoted:
            if is_open:
                words.append(word)
            word, is_open = "", False
        else:
            word, is_open = word + letter, True
    return [*words, word] if is_open else words


class _Splitter:
    """Splits a line of a shell or of PowerShell."""

    def __init__(self, script: _Script, unknown: list[str]) -> None:
        self.script = script
        self.escape = _ESCAPE[script.kind]
        self.variable = _VARIABLE[script.kind]
        self.fill: Callable[[str], str] = lambda text: _filled(text, script, unknown)

    def split(self, line: str) -> list[str]:
        words: list[str] = []
        word, is_open, quote = "", False, ""
        position = 0
        while position < len(line):
            letter = line[position]
            position += 1
            follows = line[position : position + 1]
            if letter == self.escape and quote != "'" and follows:
                # In double quotes a shell's backslash is one but before these.
                kept = self.script.kind == SH and quote == '"' and follows not in '"\\$`'
                word, is_open = word + (letter if kept else "") + follows, True
                position += 1
            elif quote and letter == quote:
                quote = ""
            elif not quote and letter in "\"'":
                quote, is_open = letter, True
            elif letter == "$" and quote != "'":
                match = self.variable.match(line, position - 1)
                if match is None:
                    word, is_open = word + letter, True
                    continue
                position = match.end()
                many = self._list_named(match)
                if many is not None and not word:
                    words += many[:-1]
                    word, is_open = (many[-1], True) if many else ("", False)
                else:
                    word, is_open = word + self.fill(match[0]), True
            elif letter.isspace() and not quote:
                if is_open:
                    words.append(word)
                word, is_open = "", False
            elif letter == "#" and not quote and not is_open:
                break
            else:
                word, is_open = word + letter, True
        return [*words, word] if is_open else words

    def _list_named(self, match: re.Match[str]) -> list[str] | None:
        values = self.script.variables.get(self.script.name(match[1] or match[2]))
        return values if values is not None and len(values) != 1 else None
