"""Sizes of a terminal that the styles tell apart.

From so many columns or rows on, a screen has this class.
"""

from __future__ import annotations

WIDTHS = ((0, "-narrow"), (100, "-wide"))
HEIGHTS = ((0, "-low"), (32, "-high"))
