"""Which of several datasets of a file the fields show."""

from __future__ import annotations

from collections.abc import Sequence

from textual.widgets import Select


class DatasetChoice(Select[int]):
    """One row; its values are the positions of the [[datasets]] in the file."""

    def __init__(self, names: Sequence[str], chosen: int) -> None:
        self._names = tuple(names)
        rows = [(name, number) for number, name in enumerate(names)]
        super().__init__(rows, value=chosen, allow_blank=False, compact=True, id="dataset")

    def show(self, names: Sequence[str], chosen: int) -> None:
        """Draw the datasets as they are now; that is no choice of the person's."""
        with self.prevent(Select.Changed):
            if tuple(names) != self._names:
                self._names = tuple(names)
                self.set_options((name, number) for number, name in enumerate(names))
            self.value = chosen
