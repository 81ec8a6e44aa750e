"""The errors that a person can meet, and the exit code each one ends with.

SdftError
  +- UserError               2  what the user asked for cannot be done as asked
  |    +- ConfigError        2  one or more mistakes in settings or files of settings
  |    +- UnknownName        2  a name that no table knows
  +- EnvironmentFault        3  this machine lacks something
  +- DataError               4  images, captions, caches or model files are not usable
  +- StoppedResumable        5  stopped half-way by SIGTERM, a time limit or save-and-stop
  +- Interrupted           130  stopped half-way by Ctrl-C
  +- SaidElsewhere              what another process of the run says; this one ends without words
       +- PeerLost          76  another process has ended; only `--num_processes` meets the code

A bug is an assert or another exception, never one of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

_TEXTS = ("what", "where", "fix", "key")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in the words a person needs to mend it."""

    what: str
    where: str = ""
    """File and line, key, option, or path. Empty where there is no place to point at."""
    fix: str = ""
    key: str = ""
    """Names the sentence for other languages, in `strings/messages.<language>.toml`."""
    values: Mapping[str, object] = field(default_factory=dict, hash=False, compare=False)
    """What the sentence has places for."""

    def as_json(self) -> dict[str, object]:
        """Return what scripts get: English, and what another language is made from."""
        record: dict[str, object] = {"what": self.what, "where": self.where, "fix": self.fix}
        values = {name: str(value) for name, value in self.values.items()}
        return record | ({"key": self.key, "values": values} if self.key else {})

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Problem:
        """Return the problem that `as_json` told of."""
        what, where, fix, key = (str(record.get(name, "")) for name in _TEXTS)
        values = record.get("values")
        return cls(what, where, fix, key, values if isinstance(values, dict) else {})

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.fix:
            lines.append(f"  -> {self.fix}")
        return "\n".join(lines)


class SdftError(Exception):
    """What a person can cause or mend. Holds one problem or several, all found at once."""

    exit_code = 1

    def __init__(
        self,
        what: str = "",
        where: str = "",
        fix: str = "",
        *,
        key: str = "",
        values: Mapping[str, object] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        assert what or problems, "an error needs words"
        one = Problem(what, where, fix, key, values or {})
        self.problems: tuple[Problem, ...] = tuple(problems) or (one,)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UserError(SdftError):
    """What was asked for cannot be done as asked."""

    exit_code = 2


class ConfigError(UserError):
    """Mistakes in settings: command line, TOML, JSON."""


class UnknownName(UserError):
    """A name that its table does not have; the message gives the nearest ones."""


class EnvironmentFault(SdftError):
    """The machine lacks something: a driver, a package, disk space, a permission."""

    exit_code = 3


class DataError(SdftError):
    """Images, captions, caches or model files that cannot be used."""

    exit_code = 4


class StoppedResumable(SdftError):
    """Stopped half-way by something other than Ctrl-C; the run can be resumed."""

    exit_code = 5


class Interrupted(SdftError):
    """Stopped half-way by Ctrl-C; the run can be resumed."""

    exit_code = 130


class SaidElsewhere(SdftError):
    """Another process of the run says it; this one ends with the same exit code and no words."""

    def __init__(self, what: str, *, exit_code: int = 1) -> None:
        super().__init__(what)
        self.exit_code = exit_code


class PeerLost(SaidElsewhere):
    """Another process of the run has ended, so that nothing can be exchanged with it.

    The main process says so: where an exchange fails for another reason, nobody else would.
    """

    exit_code = 76

    def __init__(self, what: str) -> None:
        super().__init__(what, exit_code=PeerLost.exit_code)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return `did you mean "x"?` for the known name most like `name`, or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return f'did you mean "{by_lower[matches[0]]}"?' if matches else ""
