"""Writes the tables of README.md from the declarations in the package.

python tests/readme_tables.py           writes them
python tests/readme_tables.py --check   ends with 1 where they are out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells
    )


def commands() -> str:
    from sdft.cli.app import COMMANDS

    return table(["command", "what it does"], [(f"`sdft {n}`", h) for n, h in COMMANDS.items()])


def settings() -> str:
    from sdft.config.dataset import DatasetSettings, SourceSettings, SubsetSettings
    from sdft.config.settings import settings_of
    from sdft.config.training import TrainingSettings

    parts = []
    for title, models in (
        ("Training settings: in `config.toml` or on the command line", [TrainingSettings]),
        (
            "Images and captions: in `dataset.toml` (G in `[general]`, D in `[[datasets]]`, S in"
            " `[[datasets.subsets]]`) or on the command line",
            [SourceSettings, DatasetSettings, SubsetSettings],
        ),
    ):
        rows = {
            one.name: (f"`{one.name}`", one.levels or "", values(one), one.help)
            for model in models
            for one in settings_of(model)
        }
        with_levels = any(row[1] for row in rows.values())
        head = ["setting", "levels", "values", "meaning"]
        if not with_levels:
            rows = {name: (row[0], *row[2:]) for name, row in rows.items()}
            head.remove("levels")
        parts.append(f"**{title}**\n\n{table(head, rows.values())}")
    return "\n\n".join(parts)


def values(setting) -> str:
    parts = []
    if setting.choices:
        parts.append(", ".join(setting.choices))
    elif setting.range and len(setting.range) < 30:
        parts.append(setting.range)
    if setting.unit:
        parts.append(setting.unit)
    default = setting.default
    if default not in (None, "", (), False):
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        parts.append(f"default {shown}")
    return "; ".join(parts)


def refused() -> str:
    from sdft.config.refused import NEEDLESS, REFUSED

    rows = [(f"`--{name}`", "refused", words) for name, words in REFUSED.items()]
    rows += [(f"`--{name}`", "accepted", words) for name, words in NEEDLESS.items()]
    return table(["option", "answer", "why, and what instead"], sorted(rows))


def scripts() -> str:
    from tests.other_scripts import rows

    return table(["script of sd-scripts", "the line here"], rows())


def with_tables(text: str) -> str:
    makers = (commands, settings, refused, scripts)
    for name, make in ((maker.__name__, maker) for maker in makers):
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, mark, after = rest.partition(f"<!-- end of {name} -->")
        assert mark, f"README.md has no place for {name}"
        text = f"{before}<!-- {name} -->\n{make()}\n{mark}{after}"
    return text


def main() -> int:
    old = README.read_text("utf-8")
    new = with_tables(old)
    if "--check" in sys.argv:
        return int(new != old)
    README.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
