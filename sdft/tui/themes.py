"""The colours: themes of our own, and the colours of curves that fit each."""

from __future__ import annotations

from textual.theme import Theme

DARK = "sdft-dark"
LIGHT = "sdft-light"
CLEAR = "sdft-clear"
CONTRAST = "sdft-contrast"

SKY, ORANGE, GREEN, YELLOW = "#56b4e9", "#e69f00", "#009e73", "#f0e442"
BLUE, VERMILION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"
"""Source: the palette of Okabe and Ito (2008), told apart with every kind of colour blindness."""

THEMES = (
    Theme(
        name=DARK,
        primary="#7aa2f7",
        secondary="#5a6b96",
        accent="#e0af68",
        warning="#e0af68",
        error="#f7768e",
        success="#9ece6a",
        foreground="#d5daf0",
        background="#15171f",
        surface="#1b1e29",
        panel="#252a38",
        dark=True,
    ),
    Theme(
        name=LIGHT,
        primary="#2f5fb3",
        secondary="#6b7fa8",
        accent="#a05a00",
        warning="#a05a00",
        error="#b3261e",
        success="#2e7d32",
        foreground="#22252e",
        background="#f7f7f4",
        surface="#ffffff",
        panel="#e8e9ee",
        dark=False,
    ),
    Theme(
        name=CLEAR,
        primary=SKY,
        secondary=BLUE,
        accent=YELLOW,
        warning=ORANGE,
        error=VERMILION,
        success=GREEN,
        foreground="#e6e6e6",
        background="#101216",
        surface="#171a20",
        panel="#232830",
        dark=True,
    ),
    Theme(
        name=CONTRAST,
        primary="#ffffff",
        secondary="#bfbfbf",
        accent="#ffff00",
        warning="#ffff00",
        error="#ff6060",
        success="#60ff60",
        foreground="#ffffff",
        background="#000000",
        surface="#000000",
        panel="#303030",
        dark=True,
    ),
)

CURVES_ON_DARK = (SKY, ORANGE, "#2fcf9f", PURPLE, YELLOW, "#ff8c42")
CURVES_ON_LIGHT = (BLUE, "#b36b00", "#00785a", "#a04a7d", "#7a7000", VERMILION)
"""One colour a run, in this order; safe for colour-blind eyes in every theme."""


def curve_colors(*, dark: bool) -> tuple[str, ...]:
    return CURVES_ON_DARK if dark else CURVES_ON_LIGHT
