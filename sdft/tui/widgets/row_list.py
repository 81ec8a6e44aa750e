"""A list whose rows come in anew; the cursor stays on the row that it was on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option


class RowList(OptionList):
    """Give it all rows again and again, each with a key that tells it from the others."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, compact=True, markup=False)
        self._keys: Sequence[Hashable] = ()
        self._last_at = 0

    def fill(self, rows: Sequence[Content], keys: Sequence[Hashable]) -> None:
        """Draw the rows; that one of them is under the cursor is told."""
        if self.highlighted is not None:
            self._last_at = self.highlighted
        at = followed(self._last_at, self._keys, keys)
        with self.prevent(OptionList.OptionHighlighted):
            self.clear_options()
            self.add_options([Option(row) for row in rows])
        if keys:
            # While there are none, such as of a mistake, the place among the last ones is kept.
            self._keys, self._last_at = tuple(keys), at
            self.highlighted = at


def followed(at: int, old: Sequence[Hashable], new: Sequence[Hashable]) -> int:
    """Return where the row at a position of the old rows is among the new ones.

    A row that is gone leaves its place to the next one; other rows altogether begin at the top.
    """
    if at >= len(old) or not set(old) & set(new):
        return 0
    same = [position for position, key in enumerate(new) if key == old[at]]
    return min(same, key=lambda position: abs(position - at), default=min(at, len(new) - 1))
