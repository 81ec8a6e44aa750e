"""Pictures for the terminal: read, checked and made small in a thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdft.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE_PX = 1024
"""No terminal shows more of it; a larger picture would only be slow to send."""

GRAPHICS = ("auto", "kitty", "sixel", "blocks", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallPicture:
    path: Path
    image: Image | None
    problem: str = ""
    """Why there is no image."""


def read_picture(path: Path) -> SmallPicture:
    """Decode a picture and make it small; a file that is none gives its problem in words."""
    from PIL import Image

    from sdft.dataset.pixels import decode_rgb

    # Half of a picture's time is this import; here it keeps no handler waiting.
    ask_terminal()
    try:
        image = Image.fromarray(decode_rgb(path))
    except (DataError, OSError) as error:
        return SmallPicture(path=path, image=None, problem=str(error))
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return SmallPicture(path=path, image=image)


def ask_terminal() -> bool:
    """Find out what pictures the terminal can show, if any; call it before the screen starts.

    The answers come in as if they were typed, so later a screen would take them for keys.
    """
    try:
        import textual_image.widget  # noqa: F401 - asks when it is imported
    except ZeroDivisionError:
        # A terminal that tells no size of its own, as some serial lines and pipes do.
        return False
    return True


def picture_widget(graphics: str):  # type: ignore[no-untyped-def]
    """Return the widget class for one of GRAPHICS but `none`."""
    from textual_image import widget

    return {
        "kitty": widget.TGPImage,
        "sixel": widget.SixelImage,
        "blocks": widget.HalfcellImage,
        "ascii": widget.UnicodeImage,
    }.get(graphics, widget.Image)
