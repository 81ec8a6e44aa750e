"""Containers that are drawn at once, since other widgets lie over nearly all of them."""

from __future__ import annotations

from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Ground(Widget):
    """One colour, maybe with a border: Textual would work out and cut up each of its lines.

    Stands last among the bases: Textual looks for styles along the first.
    """

    def render_lines(self, crop: Region) -> list[Strip]:
        gutter = self.styles.gutter
        end = self.outer_size.height - gutter.bottom
        drawn: dict[int, Strip] = {}
        strips = []
        for y in crop.line_range:
            # All between the upper and the lower edge are alike.
            like = y if y < gutter.top or y >= end else gutter.top
            if like not in drawn:
                (drawn[like],) = super().render_lines(Region(crop.x, y, crop.width, 1))
            strips.append(drawn[like])
        return strips

    def render_line(self, y: int) -> Strip:
        return Strip.blank(self.size.width, self.visual_style.rich_style)


class Row(Horizontal, Ground):
    """Its parts stand side by side."""


class Column(Vertical, Ground):
    """Its parts stand one below the other."""


class Scroll(VerticalScroll, Ground):
    """A column that is longer than its place."""
