"""A person's own cleaning rules, and their use together with the reference's.

In: metadata entries and the rules of a TOML file. Out: cleaned entries.

    reference = true            # false leaves sd-scripts' rules out
    [tags]
    alias = { "1girl" = ["one girl", "single girl"] }
    replace = { "grey hair" = "gray hair" }
    drop = ["watermark", "* name"]
    [captions]
    replace = { "a photo of" = "a photograph of" }
    drop = ["stock photo"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sdft.dataset.cleaning import clean_caption, clean_tags, num_ratings
from sdft.dataset.metadata_file import Entries
from sdft.errors import ConfigError, Problem, nearest
from sdft.files import read_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What happens to tags and captions, in the order: reference, alias, replace, drop."""

    reference: bool = True
    tag_replace: Mapping[str, str] = field(default_factory=dict)
    """Whole tags, aliases included."""
    tag_drop: tuple[str, ...] = ()
    """Whole tags; `*` and `?` stand for any characters."""
    caption_replace: Mapping[str, str] = field(default_factory=dict)
    """Text anywhere in a caption, each replaced once from left to right."""
    caption_drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    entries: Entries
    notices: tuple[Problem, ...]
    """Entries with several ratings, or with nothing left."""
    num_without_tags: int
    num_without_caption: int


_TABLES = {"tags": ("alias", "replace", "drop"), "captions": ("replace", "drop")}


def read_rules(path: Path) -> Rules:
    """Read a rules file.

    Raises: ConfigError with every mistake; OSError where the file cannot be read.
    """
    try:
        table = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(what=f"not TOML: {error}", where=str(path)) from error
    problems = list(_problems(table, str(path)))
    if problems:
        raise ConfigError(problems=problems)
    tags, captions = table.get("tags", {}), table.get("captions", {})
    aliases = {
        spelling: name
        for name, spellings in tags.get("alias", {}).items()
        for spelling in spellings
    }
    return Rules(
        reference=table.get("reference", True),
        tag_replace=aliases | tags.get("replace", {}),
        tag_drop=tuple(tags.get("drop", ())),
        caption_replace=captions.get("replace", {}),
        caption_drop=tuple(captions.get("drop", ())),
    )


def clean_entries(entries: Mapping[str, Mapping[str, Any]], rules: Rules) -> Cleaned:
    """Clean every entry's tags and caption; other fields stay as they are."""
    cleaned: Entries = {}
    notices: list[Problem] = []
    for key, entry in entries.items():
        cleaned[key] = dict(entry)
        for name, clean in (("caption", tidy_caption), ("tags", tidy_tags)):
            before = entry.get(name)
            if not before:
                continue
            after = clean(before, rules)
            cleaned[key][name] = after
            if not after:
                notices.append(Problem(f"nothing is left of the {name}", key, f"it was: {before}"))
        if rules.reference and num_ratings(entry.get("tags") or "") > 1:
            notices.append(Problem("several ratings; all behind the first are cut", key))
    return Cleaned(
        entries=cleaned,
        notices=tuple(notices),
        num_without_tags=sum(not entry.get("tags") for entry in entries.values()),
        num_without_caption=sum(not entry.get("caption") for entry in entries.values()),
    )


def tidy_tags(tags: str, rules: Rules) -> str:
    """Return one entry's tags after all rules; own rules also remove doubles that they make."""
    if rules.reference:
        tags = clean_tags(tags)
    if not (rules.tag_replace or rules.tag_drop):
        return tags
    renamed = [rules.tag_replace.get(tag, tag) for tag in tags.split(", ")]
    kept = [tag for tag in renamed if tag and not _dropped(tag, rules.tag_drop)]
    return ", ".join(dict.fromkeys(kept))


def tidy_caption(caption: str, rules: Rules) -> str:
    """Return one entry's caption after all rules."""
    if rules.reference:
        caption = clean_caption(caption)
    for before, after in rules.caption_replace.items():
        caption = caption.replace(before, after)
    for phrase in rules.caption_drop:
        if phrase in caption:
            caption = re.sub(" {2,}", " ", caption.replace(phrase, "")).strip(" ,")
    return caption


def _dropped(tag: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(tag, pattern) for pattern in patterns)


def _problems(table: Mapping[str, Any], path: str) -> list[Problem]:
    problems: list[Problem] = []
    if not isinstance(table.get("reference", True), bool):
        problems.append(Problem("reference is true or false", path))
    known = ["reference", *_TABLES]
    for name, rules in table.items():
        if name not in known:
            fix = nearest(name, known) or f"known: {', '.join(known)}"
            problems.append(Problem(f'no such key "{name}"', path, fix))
        elif name in _TABLES and not isinstance(rules, dict):
            problems.append(Problem(f"write [{name}] as a table", path))
        elif name in _TABLES:
            for rule, value in rules.items():
                problems += _rule_problems(name, rule, value, path)
    return problems


def _rule_problems(table: str, rule: str, value: Any, path: str) -> list[Problem]:
    where = f"{path}, [{table}] {rule}"
    if rule not in _TABLES[table]:
        fix = nearest(rule, _TABLES[table]) or f"known: {', '.join(_TABLES[table])}"
        return [Problem(f'no such rule "{rule}"', where, fix)]
    if rule == "drop":
        fine = _is_texts(value)
    else:
        fine = isinstance(value, dict) and all(
            isinstance(inner, str) if rule == "replace" else _is_texts(inner)
            for inner in value.values()
        )
    shapes = {
        "drop": 'a list, such as ["watermark"]',
        "replace": 'pairs, such as { "old" = "new" }',
        "alias": 'lists, such as { "1girl" = ["one girl"] }',
    }
    return [] if fine else [Problem(f"should be {shapes[rule]}", where)]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(inner, str) for inner in value)
