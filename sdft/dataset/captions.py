"""From caption files to raw captions, and from a raw caption to the words of one use.

Raw captions are read once. What is read of them in one epoch and repeat is a pure function of
the item's address: each purpose draws from a stream of its own.

Source of the rules: sd-scripts v0.10, with what it documents where its behaviour differs.
"""

from __future__ import annotations

import math
import random
import re

from sdft.dataset.records import WordRules
from sdft.errors import DataError
from sdft.streams import Address

NUM_FACE_PARTS = 4
"""A stem may end in `_cx_cy_w_h`, the place of a face; captions then stand without it."""


def caption_stems(image_stem: str) -> tuple[str, ...]:
    """Return the stems under which an image's caption may lie, the best first."""
    parts = image_stem.split("_")
    if len(parts) <= NUM_FACE_PARTS:
        return (image_stem,)
    return image_stem, "_".join(parts[:-NUM_FACE_PARTS])


def raw_caption(content: bytes, *, all_lines: bool) -> tuple[str, int]:
    """Return a caption file's first line that holds text, or all of them, and how many are unread.

    Raises: DataError where the content is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            what=f"not UTF-8 (byte {error.start})",
            fix="save it as UTF-8",
            key="not_utf8",
            values={"byte": error.start},
        ) from error
    # Not `splitlines`: it also cuts at characters that are no line ends in an editor.
    stripped = (line.strip() for line in re.split(r"\r\n|\n|\r", text))
    lines = [line for line in stripped if line]
    if all_lines:
        return "\n".join(lines), 0
    return (lines[0] if lines else ""), max(len(lines) - 1, 0)


def words_of(
    item_caption: str,
    rules: WordRules,
    address: Address,
    step: int,
    max_train_steps: int,
) -> str:
    """Return the words that the model reads in this use of the item.

    `step` counts the optimizer steps that are done; only the token warm-up looks at it.
    """
    if _is_dropped(rules, address):
        return ""
    text = _with_ends(_chosen_line(item_caption, rules, address), rules)
    if rules.enable_wildcard:
        text = expand_wildcards(text, address.stream("wildcard"))
    cut_steps = warmup_steps(rules, max_train_steps)
    has_mark = bool(rules.keep_tokens_separator) and rules.keep_tokens_separator in text
    changes_tags = rules.shuffle_caption or cut_steps > 0 or rules.caption_tag_dropout_rate > 0
    if has_mark or changes_tags:
        fixed, flexible, tail = split_tags(text, rules)
        flexible = _warmed_up(flexible, rules.token_warmup_min, step, cut_steps)
        if rules.caption_tag_dropout_rate > 0:
            draw = address.stream("tag dropout")
            flexible = [tag for tag in flexible if draw.random() >= rules.caption_tag_dropout_rate]
        if rules.shuffle_caption:
            address.stream("shuffle").shuffle(flexible)
        # The reference joins with comma and space whatever the separator is.
        text = ", ".join([*fixed, *flexible, *tail])
    if rules.secondary_separator:
        text = text.replace(rules.secondary_separator, rules.caption_separator)
    return text


def split_tags(text: str, rules: WordRules) -> tuple[list[str], list[str], list[str]]:
    """Return the fixed tags in front, the flexible ones, and the fixed tail, without empty ones."""
    mark = rules.keep_tokens_separator
    if mark and mark in text:
        # What stands behind a third mark belongs to the tail.
        fixed, flexible, tail = [*text.split(mark, 2), "", ""][:3]
        tail = tail.replace(mark, rules.caption_separator)
        return _tags(fixed, rules), _tags(flexible, rules), _tags(tail, rules)
    tags = _tags(text, rules)
    return tags[: rules.keep_tokens], tags[rules.keep_tokens :], []


def expand_wildcards(text: str, draw: random.Random) -> str:
    """Replace each `{a|b|c}` by one of its parts; `{{` and `}}` are braces. Nothing nests."""

    def choose(match: re.Match[str]) -> str:
        doubled: str | None = match["doubled"]
        return doubled[0] if doubled else draw.choice(match["choices"].split("|"))

    return re.sub(r"(?P<doubled>\{\{|\}\})|\{(?P<choices>[^{}]+)\}", choose, text)


def warmup_steps(rules: WordRules, max_train_steps: int) -> int:
    """Return the length of the token warm-up; 0 for none. Below 1 it is a share of all steps."""
    if rules.token_warmup_step < 1:
        return math.floor(rules.token_warmup_step * max_train_steps)
    return math.floor(rules.token_warmup_step)


def _is_dropped(rules: WordRules, address: Address) -> bool:
    every = rules.caption_dropout_every_n_epochs
    if every > 0 and address.epoch % every == 0:
        return True
    rate = rules.caption_dropout_rate
    return rate > 0 and address.stream("caption dropout").random() < rate


def _chosen_line(item_caption: str, rules: WordRules, address: Address) -> str:
    lines = item_caption.split("\n")
    if rules.enable_wildcard and len(lines) > 1:
        return address.stream("caption line").choice(lines)
    return lines[0]


def _with_ends(line: str, rules: WordRules) -> str:
    """Put prefix and suffix around the chosen line, so that each line of several gets both."""
    text = f"{rules.caption_prefix} {line}" if rules.caption_prefix else line
    return f"{text} {rules.caption_suffix}" if rules.caption_suffix else text


def _tags(text: str, rules: WordRules) -> list[str]:
    return [tag for part in text.split(rules.caption_separator) if (tag := part.strip())]


def _warmed_up(flexible: list[str], minimum: int, step: int, cut_steps: int) -> list[str]:
    """Return the first tags; `minimum` of them at step 0, all from `cut_steps` on."""
    if step >= cut_steps:
        return flexible
    return flexible[: step * (len(flexible) - minimum) // cut_steps + minimum]
