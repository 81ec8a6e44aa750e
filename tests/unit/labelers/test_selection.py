"""Tags from probabilities: texts worked out by hand, and a covering table of options beside an
independent reading of the reference."""

import itertools
import random

import numpy as np
import pytest

from sdft.errors import UserError
from sdft.labelers.selection import (
    TagChoice,
    TagSelector,
    appended,
    parse_replacements,
    parse_tag_list,
)
from sdft.labelers.vocabulary import TagTable

CSV = TagTable(
    names=("safe", "explicit", "1girl", "long_hair", "^_^", "solo", "saber_(fate)", "rin_(x)_(y)"),
    categories=("rating", "rating", *["general"] * 4, *["character"] * 2),
    path="selected_tags.csv",
)
CSV_P = np.array([0.2, 0.7, 0.9, 0.4, 0.5, 0.1, 0.6, 0.8], dtype=np.float32)

MAPPING_ROWS = {
    "general": "rating",
    "sensitive": "rating",
    "1girl": "general",
    "blue_sky": "general",
    "miku_(vocaloid)": "character",
    "fate_(series)": "copyright",
    "highres": "meta",
    "sd_xl": "model",
    "best_quality": "quality",
    "low_quality": "quality",
    "wlop_(artist)": "artist",
}
MAPPING = TagTable(
    names=tuple(MAPPING_ROWS), categories=tuple(MAPPING_ROWS.values()), path="tag_mapping.json"
)
MAPPING_P = np.array([0.1, 0.6, 0.5, 0.95, 0.7, 0.45, 0.8, 0.36, 0.3, 0.4, 0.9], dtype=np.float32)


def text(table, probabilities, form, **options):
    choice = TagChoice(**options)
    return choice.caption_separator.join(TagSelector(table, choice, form, 0.35).tags(probabilities))


CSV_TEXTS = [
    ({}, "1girl, long_hair, ^_^, saber_(fate), rin_(x)_(y)"),
    ({"thresh": 0.55}, "1girl, saber_(fate), rin_(x)_(y)"),
    ({"thresholds": {"general": 0.95}}, "saber_(fate), rin_(x)_(y)"),
    ({"thresholds": {"character": 1.1}}, "1girl, long_hair, ^_^"),
    ({"thresh": 0.9}, "1girl"),
    ({"remove_underscore": True}, "1girl, long hair, ^_^, saber (fate), rin (x) (y)"),
    ({"character_tag_expand": True}, "1girl, long_hair, ^_^, saber, fate, rin_(x), y"),
    (
        {"character_tag_expand": True, "remove_underscore": True, "caption_separator": "; "},
        "1girl; long hair; ^_^; saber; fate; rin (x); y",
    ),
    ({"character_tags_first": True}, "rin_(x)_(y), saber_(fate), 1girl, long_hair, ^_^"),
    ({"use_rating_tags": True, "thresh": 0.8}, "explicit, 1girl, rin_(x)_(y)"),
    ({"use_rating_tags_as_last_tag": True, "thresh": 0.85}, "1girl, explicit"),
    ({"use_rating_tags": True, "undesired_tags": ("explicit", "1girl"), "thresh": 0.85}, ""),
    ({"use_quality_tags": True, "thresh": 0.85}, "1girl"),
    (
        {"use_rating_tags": True, "always_first_tags": ("^_^", "1girl", "solo"), "thresh": 0.45},
        "1girl, ^_^, explicit, saber_(fate), rin_(x)_(y)",
    ),
    ({"undesired_tags": ("long hair",)}, "1girl, long_hair, ^_^, saber_(fate), rin_(x)_(y)"),
    (
        {"undesired_tags": ("long hair",), "remove_underscore": True},
        "1girl, ^_^, saber (fate), rin (x) (y)",
    ),
    (
        {"tag_replacement": (("long_hair", "hair"), ("1girl", "woman"), ("explicit", "e"))},
        "woman, hair, ^_^, saber_(fate), rin_(x)_(y)",
    ),
    (
        {"tag_replacement": (("1girl", "woman"),), "undesired_tags": ("woman",), "thresh": 0.7},
        "rin_(x)_(y)",
    ),
    (
        {"tag_replacement": (("1girl", "woman"),), "undesired_tags": ("1girl",), "thresh": 0.85},
        "woman",
    ),
    ({"tag_order": "probability", "thresh": 0.55}, "1girl, rin_(x)_(y), saber_(fate)"),
    ({"tag_order": "alphabet", "thresh": 0.55}, "1girl, rin_(x)_(y), saber_(fate)"),
    ({"escape_tags": True, "thresh": 0.7}, r"1girl, rin_\(x\)_\(y\)"),
]

MAPPING_TEXTS = [
    (
        {},
        "blue_sky, wlop_(artist), highres, miku_(vocaloid), 1girl, fate_(series), sd_xl",
    ),
    (
        {"character_tags_first": True, "thresh": 0.6},
        "miku_(vocaloid), blue_sky, wlop_(artist), highres",
    ),
    ({"use_quality_tags": True, "thresh": 0.85}, "low_quality, blue_sky, wlop_(artist)"),
    (
        {"use_quality_tags": True, "use_rating_tags": True, "thresh": 0.95},
        "sensitive, low_quality, blue_sky",
    ),
    (
        {"use_quality_tags_as_last_tag": True, "use_rating_tags_as_last_tag": True, "thresh": 0.95},
        "blue_sky, low_quality, sensitive",
    ),
    (
        {"thresholds": {"artist": 2, "meta": 0.9, "copyright": 0.5, "model": 0.3}, "thresh": 0.5},
        "blue_sky, miku_(vocaloid), 1girl, sd_xl",
    ),
    (
        {
            "remove_underscore": True,
            "character_tag_expand": True,
            "tag_replacement": (("miku (vocaloid)", "teal singer (vocaloid)"),),
            "thresh": 0.7,
        },
        "blue sky, wlop (artist), highres, teal singer, vocaloid",
    ),
]


@pytest.mark.parametrize(("options", "expected"), CSV_TEXTS)
def test_wd14_tags_are_the_documented_text(options, expected):
    assert text(CSV, CSV_P, "csv", **options) == expected


@pytest.mark.parametrize(("options", "expected"), MAPPING_TEXTS)
def test_tag_mapping_tags_are_the_documented_text(options, expected):
    assert text(MAPPING, MAPPING_P, "mapping", **options) == expected


def test_a_flat_list_keeps_its_order_and_ends_with_the_rating():
    table = TagTable(
        names=("1girl", "miku", "smile", "rating:safe", "rating:explicit"),
        categories=("general", "character", "general", "rating", "rating"),
        path="tags.txt",
    )
    p = np.array([0.9, 0.8, 0.6, 0.7, 0.1], dtype=np.float32)
    assert text(table, p, "danbooru", thresh=0.5) == "1girl, miku, smile"
    rated = text(table, p, "danbooru", thresh=0.5, use_rating_tags_as_last_tag=True)
    assert rated == "1girl, miku, smile, rating:safe"


OPTIONS = {
    "thresh": [0.35, 0.75],
    "thresholds": [{}, {"general": 0.45, "character": 1.5}],
    "remove_underscore": [False, True],
    "undesired_tags": [(), ("long hair", "1girl", "safe", "blue sky")],
    "character_tag_expand": [False, True],
    "tag_replacement": [(), (("long_hair", "hair"), ("1girl", "woman"), ("blue sky", "sky"))],
    "rating": ["no", "use_rating_tags", "use_rating_tags_as_last_tag"],
    "quality": ["no", "use_quality_tags", "use_quality_tags_as_last_tag"],
    "character_tags_first": [False, True],
    "always_first_tags": [(), ("solo", "^_^", "blue_sky")],
    "caption_separator": [", ", " | "],
}


def covering_table():
    """Rows in which every pair of values of two options appears at least once."""
    draw = random.Random(3)
    names = list(OPTIONS)
    open_pairs = {
        (a, i, b, j)
        for a, b in itertools.combinations(names, 2)
        for i in range(len(OPTIONS[a]))
        for j in range(len(OPTIONS[b]))
    }
    rows = []
    while open_pairs:
        tries = [{name: draw.randrange(len(OPTIONS[name])) for name in names} for _ in range(60)]
        covered = [
            {p for p in open_pairs if row[p[0]] == p[1] and row[p[2]] == p[3]} for row in tries
        ]
        best = max(range(len(tries)), key=lambda t: len(covered[t]))
        open_pairs -= covered[best]
        rows.append({name: OPTIONS[name][value] for name, value in tries[best].items()})
    return rows


def by_the_reference(table, p, mapping, o):
    """The order of the reference's own text, with plain lists and strings."""

    def written(name, category):
        def expand(n):
            if o["character_tag_expand"] and category == "character" and n.endswith(")"):
                cut = n.rindex("(")
                return n[:cut].rstrip("_ ") + o["caption_separator"] + n[cut + 1 : -1]
            return n

        if not mapping:
            name = expand(name)
        if o["remove_underscore"] and len(name) > 3:
            name = name.replace("_", " ")
        for old, new in o["tag_replacement"]:
            if name == old:
                name = new
                break
        return expand(name) if mapping else name

    rows = [
        (float(p[i]), written(n, c), c)
        for i, (n, c) in enumerate(zip(table.names, table.categories, strict=True))
    ]
    limit = {c: o["thresholds"].get(c, o["thresh"]) for c in table.categories}
    taken = [
        r
        for r in rows
        if r[2] not in ("rating", "quality")
        and r[0] >= float(np.float32(limit[r[2]]))
        and r[1] not in o["undesired_tags"]
    ]
    if mapping:
        taken.sort(key=lambda r: r[0], reverse=True)
        if o["character_tags_first"]:
            taken.sort(key=lambda r: r[2] != "character")
        tags = [r[1] for r in taken]
    else:
        tags = [r[1] for r in taken if r[2] == "general"]
        for r in (r for r in taken if r[2] == "character"):
            tags.insert(0 if o["character_tags_first"] else len(tags), r[1])
    for kind in ("quality", "rating"):
        best = max((r for r in rows if r[2] == kind), default=None)
        if best is None or o[kind] == "no" or best[1] in o["undesired_tags"]:
            continue
        tags.insert(len(tags) if "last" in o[kind] else 0, best[1])
    for first in o["always_first_tags"]:
        if first in tags:
            tags.insert(0, tags.pop(tags.index(first)))
    return o["caption_separator"].join(tags)


@pytest.mark.parametrize("form", ["csv", "mapping"])
def test_every_pair_of_options_gives_the_reference_s_text(form):
    table, p = (CSV, CSV_P) if form == "csv" else (MAPPING, MAPPING_P)
    rows = covering_table()
    assert len(rows) >= 9
    for row in rows:
        options = {n: v for n, v in row.items() if n not in ("rating", "quality")}
        options |= {v: True for n, v in row.items() if n in ("rating", "quality") and v != "no"}
        assert text(table, p, form, **options) == by_the_reference(table, p, form == "mapping", row)


def test_replacements_are_read_with_their_escapes():
    assert parse_replacements("a,b;c,d") == (("a", "b"), ("c", "d"))
    assert parse_replacements(r"a\,b,c;d\;e,f") == (("a,b", "c"), ("d;e", "f"))
    assert parse_replacements("") == ()
    with pytest.raises(UserError, match='"a" is not a replacement'):
        parse_replacements("a;b,c")


def test_lists_of_tags_are_split_at_the_stripped_separator():
    assert parse_tag_list("a, b,c , ", ", ") == ("a", "b", "c")
    assert parse_tag_list("a|b, c", " | ") == ("a", "b, c")


def test_appending_keeps_the_file_s_tags_and_adds_only_new_ones():
    assert appended("by hand, 1girl\n", ["1girl", "smile"], ", ") == ["by hand", "1girl", "smile"]
