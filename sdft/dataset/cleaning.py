"""Cleans tags and captions by sd-scripts' rules.

In: one text of comma-separated tags, or one caption. Out: the cleaned text.
The rules and their order are those of `clean_captions_and_tags.py`: people's datasets were made
with them, so they are kept to the letter, odd cases included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# While the rules run, each tag stands between a delimiter of its own on either side, so that
# neighbouring tags can be matched and removed without touching each other.
_MULTI_PERSON_GROUPS = tuple(
    re.compile(f", (?:{tags}), ")
    for tags in (
        r"(?:long|short|medium) hair",
        r"(?:bob|hime) cut",
        r"[\w-]+ eyes",
        r"[\w-]+ sleeves|sleeveless",
        r"ponytail|braid|ahoge|twintails|[\w-]+ bun|single hair bun|single side bun"
        r"|two side up|two tails|[\w-]+ braid|sidelocks",
    )
)
"""With several people in the picture nobody knows whose these are, once two of a kind appear."""

_HAIR_LENGTH = _MULTI_PERSON_GROUPS[0]
_HAIR = re.compile(r", [\w-]+ hair, ")
_SHORT_TAG = re.compile(r", ([\w-]+|hair ornament), ")
_LONG_TAG = re.compile(r"(?:\w+ )+[\w-]+")
_LONG_ORNAMENT = re.compile(r"(?:\w+ )+hair ornament")

# Stand-ins from Unicode's private area: no tag contains them.
_SMILEY = "\ue000"
_SET_ASIDE = ", \ue001, "

CAPTION_REPLACEMENTS: Sequence[tuple[str, str]] = (
    ("anime anime", "anime"),
    ("young ", ""),
    ("anime girl", "girl"),
    ("cartoon female", "girl"),
    ("cartoon lady", "girl"),
    ("cartoon character", "girl"),
    ("cartoon woman", "girl"),
    ("cartoon women", "girls"),
    ("cartoon girl", "girl"),
    ("anime female", "girl"),
    ("anime lady", "girl"),
    ("anime character", "girl"),
    ("anime woman", "girl"),
    ("anime women", "girls"),
    ("lady", "girl"),
    ("female", "girl"),
    ("woman", "girl"),
    ("women", "girls"),
    ("people", "girls"),
    ("person", "girl"),
    ("a cartoon figure", "a figure"),
    ("a cartoon image", "an image"),
    ("a cartoon picture", "a picture"),
    ("an anime cartoon image", "an image"),
    ("a cartoon anime drawing", "a drawing"),
    ("a cartoon drawing", "a drawing"),
    ("girl girl", "girl"),
)
"""Applied in this order, each until nothing changes. Source: reference, section 1.7."""


def clean_tags(tags: str) -> str:
    """Return the tags after the reference's seven steps; cleaning twice changes nothing more."""
    wrapped = _wrap(_without_rating(_with_spaces(tags)))
    if "girls" in wrapped or "boys" in wrapped:
        wrapped = _without_mixed_up_traits(wrapped)
    wrapped = _without_shorter_doubles(wrapped)
    return wrapped.replace(", , ", ", ")[2:-2]


def num_ratings(tags: str) -> int:
    """Return how many times a rating follows a comma; more than one is worth a warning."""
    return _with_spaces(tags).count(", rating")


def clean_caption(caption: str) -> str:
    """Return the caption after the reference's replacements.

    The order matters: `cartoon person` becomes `cartoon girl`, which only a second cleaning
    would shorten to `girl`.
    """
    for before, after in CAPTION_REPLACEMENTS:
        while before in caption:
            caption = caption.replace(before, after)
    return caption


def split_tags(tags: str, separator: str = ",") -> list[str]:
    """Return the tags of a text, trimmed, without empty ones."""
    return [tag for tag in (part.strip() for part in tags.split(separator)) if tag]


def _with_spaces(tags: str) -> str:
    return tags.replace("^_^", _SMILEY).replace("_", " ").replace(_SMILEY, "^_^")


def _without_rating(tags: str) -> str:
    return tags.partition(", rating")[0]


def _wrap(tags: str) -> str:
    return ", " + tags.replace(", ", ", , ") + ", "


def _without_mixed_up_traits(wrapped: str) -> str:
    for group in _MULTI_PERSON_GROUPS:
        if len(group.findall(wrapped)) > 1:
            wrapped = group.sub("", wrapped)
    hair_length = _HAIR_LENGTH.search(wrapped)
    if hair_length is not None:
        wrapped = _HAIR_LENGTH.sub(_SET_ASIDE, wrapped)
    if len(_HAIR.findall(wrapped)) > 1:
        wrapped = _HAIR.sub("", wrapped)
    return wrapped.replace(_SET_ASIDE, hair_length[0]) if hair_length is not None else wrapped


def _without_shorter_doubles(wrapped: str) -> str:
    short_tags = _SHORT_TAG.findall(wrapped)
    # One pass collects what the long tags end with: searching the text anew for each short tag
    # would compile a pattern a tag, which is most of the time for a large file.
    wanted = set(short_tags)
    endings = set()
    for tag in wrapped.split(", "):
        last_word = tag[tag.rfind(" ") + 1 :]
        if last_word in wanted and _LONG_TAG.fullmatch(tag):
            endings.add(last_word)
        if last_word == "ornament" and _LONG_ORNAMENT.fullmatch(tag):
            endings.add("hair ornament")
    for short_tag in short_tags:
        if short_tag in endings:
            wrapped = wrapped.replace(f", {short_tag}, ", "")
    return wrapped
