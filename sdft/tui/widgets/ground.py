"""A container that is drawn at once, since other widgets lie over nearly all of it."""

from __future__ import annotations

from textual.containers import Horizontal
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Ground(Widget):
    """One colour without a border: Textual would work out each of its lines.

    Stands last among the bases: Textual looks for styles along the first.
    """

    def render_lines(self, crop: Region) -> list[Strip]:
        background = self.background_colors[1]
        strip = Strip.blank(crop.width, self.visual_style.rich_style)
        for line_filter in self.app.get_line_filters():
            strip = strip.apply_filter(line_filter, background)
        return [strip] * crop.height


class Row(Horizontal, Ground):
    """Its parts stand side by side."""
