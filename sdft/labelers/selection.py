"""Which tags an image gets, in which order and spelling.

In: one image's probabilities and a TagTable. Out: its tags.
Pure. Source: section 1.5 of the reference for the `csv` and `mapping` forms; `danbooru` is the
csv form for a flat list, where general and character tags stay in the list's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sdft.errors import UserError
from sdft.labelers.vocabulary import TagTable

FORMS = ("csv", "mapping", "danbooru")
TAG_ORDERS = ("model", "probability", "alphabet")

MIN_LENGTH_WITHOUT_UNDERSCORES = 4
"""Shorter names keep theirs: `^_^`, `o_o`. Source: reference 1.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagChoice:
    """What the person asked for, under the reference's names and with its defaults."""

    thresh: float | None = None
    """None for the model's own default."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """By category; one that is absent has `thresh`. A value above 1 turns the category off."""
    remove_underscore: bool = False
    undesired_tags: tuple[str, ...] = ()
    character_tag_expand: bool = False
    tag_replacement: tuple[tuple[str, str], ...] = ()
    use_rating_tags: bool = False
    use_rating_tags_as_last_tag: bool = False
    use_quality_tags: bool = False
    use_quality_tags_as_last_tag: bool = False
    character_tags_first: bool = False
    always_first_tags: tuple[str, ...] = ()
    caption_separator: str = ", "
    tag_order: str = "model"
    """`model`: the order that the model's form has by default."""
    escape_tags: bool = False
    r"""Write `\`, `(` and `)` as `\\`, `\(` and `\)`, which prompt weights do not touch."""


class TagSelector:
    """Turns probabilities into tags; what is the same for all images is worked out once."""

    def __init__(
        self, table: TagTable, choice: TagChoice, form: str, default_thresh: float
    ) -> None:
        assert form in FORMS
        assert choice.tag_order in TAG_ORDERS
        self._choice = choice
        self._form = form
        self._names = final_names(table, choice, expand_last=form == "mapping")
        self._categories = table.categories
        self._rows_of = {
            category: np.array(
                [row for row, of in enumerate(table.categories) if of == category], dtype=np.intp
            )
            for category in set(table.categories)
        }
        undesired = set(choice.undesired_tags)
        self._wanted = np.array([name not in undesired for name in self._names], dtype=bool)
        # A value above every probability keeps a row from being taken by its threshold.
        thresh = default_thresh if choice.thresh is None else choice.thresh
        by_threshold = np.array(
            [
                np.inf
                if category in ("rating", "quality")
                else choice.thresholds.get(category, thresh)
                for category in table.categories
            ]
        )
        by_threshold[by_threshold > 1] = np.inf
        # In the outputs' own precision: a probability that is written as 0.9 reaches 0.9.
        self._thresholds = np.where(self._wanted, by_threshold, np.inf).astype(np.float32)

    def tags(self, probabilities_T: npt.NDArray[np.float32]) -> list[str]:
        """Return the tags of one image. Shapes: one value for each row of the table."""
        assert probabilities_T.shape == self._thresholds.shape
        choice = self._choice
        rows = np.nonzero(probabilities_T >= self._thresholds)[0]
        tags = [self._names[row] for row in self._in_order(rows, probabilities_T)]
        if self._form == "mapping":
            self._add_best(tags, "quality", probabilities_T)
        self._add_best(tags, "rating", probabilities_T)
        for first in choice.always_first_tags:
            if first in tags:
                tags.remove(first)
                tags.insert(0, first)
        return tags

    def _in_order(
        self, rows: npt.NDArray[np.intp], probabilities_T: npt.NDArray[np.float32]
    ) -> list[int]:
        order = self._choice.tag_order
        if order == "model":
            order = {"csv": "classes", "mapping": "probability", "danbooru": "list"}[self._form]
        if order == "probability":
            # A stable sort of the negated values keeps the table's order among equals.
            rows = rows[np.argsort(-probabilities_T[rows], kind="stable")]
        elif order == "alphabet":
            rows = np.array(sorted(rows, key=lambda row: self._names[row]), dtype=np.intp)
        ordered = [int(row) for row in rows]
        characters = [row for row in ordered if self._categories[row] == "character"]
        others = [row for row in ordered if self._categories[row] != "character"]
        if self._choice.character_tags_first:
            # The csv form puts them to the front one after the other, so they come out reversed.
            return (characters[::-1] if order == "classes" else characters) + others
        return others + characters if order == "classes" else ordered

    def _add_best(
        self, tags: list[str], category: str, probabilities_T: npt.NDArray[np.float32]
    ) -> None:
        choice = self._choice
        at_front, at_end = (
            (choice.use_rating_tags, choice.use_rating_tags_as_last_tag)
            if category == "rating"
            else (choice.use_quality_tags, choice.use_quality_tags_as_last_tag)
        )
        rows = self._rows_of.get(category)
        if rows is None or not (at_front or at_end):
            return
        best = int(rows[np.argmax(probabilities_T[rows])])
        if self._wanted[best]:
            tags.insert(len(tags) if at_end else 0, self._names[best])


def final_names(table: TagTable, choice: TagChoice, *, expand_last: bool) -> tuple[str, ...]:
    """Return how each row is written, after expansion, underscores and replacement.

    `expand_last` is the order of the mapping form: underscores, replacement, expansion.
    """
    replacement = dict(choice.tag_replacement)
    names = []
    for name, category in zip(table.names, table.categories, strict=True):
        expands = choice.character_tag_expand and category == "character"
        written = _expanded(name, choice.caption_separator) if expands and not expand_last else name
        if choice.remove_underscore and len(written) >= MIN_LENGTH_WITHOUT_UNDERSCORES:
            written = written.replace("_", " ")
        written = replacement.get(written, written)
        if expands and expand_last:
            written = _expanded(written, choice.caption_separator)
        names.append(_escaped(written) if choice.escape_tags else written)
    return tuple(names)


def _expanded(name: str, separator: str) -> str:
    """Return `name_(series)` as name, separator, series; other names as they are."""
    character, bracket, series = name.rpartition("(")
    if not bracket or not name.endswith(")"):
        return name
    for joint in ("_", " "):
        character = character.removesuffix(joint)
    return f"{character}{separator}{series.replace(')', '')}"


def _escaped(name: str) -> str:
    for character in "\\()":
        name = name.replace(character, f"\\{character}")
    return name


def parse_replacements(text: str | None) -> tuple[tuple[str, str], ...]:
    r"""Read `a,b;c,d` as a -> b, c -> d; `\,` and `\;` are a comma and a semicolon in a name.

    Raises: UserError where a pair has not two sides.
    """
    pairs = []
    for pair in _split_unescaped(text, ";") if text else ():
        sides = [
            side.replace("\\,", ",").replace("\\;", ";") for side in _split_unescaped(pair, ",")
        ]
        if len(sides) != 2 or not sides[0]:
            raise UserError(
                what=f'"{pair}" is not a replacement',
                where="--tag_replacement",
                fix='write it like "old,new;other,new other"; a comma in a name is \\,',
            )
        pairs.append((sides[0], sides[1]))
    return tuple(pairs)


def _split_unescaped(text: str, separator: str) -> list[str]:
    parts: list[str] = []
    for piece in text.split(separator):
        if parts and parts[-1].endswith("\\"):
            parts[-1] += separator + piece
        else:
            parts.append(piece)
    return parts


def parse_tag_list(text: str, caption_separator: str) -> tuple[str, ...]:
    """Split `undesired_tags` or `always_first_tags` at the separator without its spaces."""
    separator = caption_separator.strip() or ","
    return tuple(tag for tag in (part.strip() for part in text.split(separator)) if tag)


def appended(existing: str, tags: Sequence[str], caption_separator: str) -> list[str]:
    """Return the tags that a file has, then those of `tags` that it has not."""
    kept = parse_tag_list(existing.replace("\n", caption_separator), caption_separator)
    return [*kept, *(tag for tag in tags if tag not in kept)]
