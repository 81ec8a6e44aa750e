"""A caption edited beside its picture."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static, TextArea

from sdft.dataset.word_files import read_words
from sdft.errors import SdftError
from sdft.files import in_form_of, write_bytes
from sdft.tui.picture import SmallPicture, picture_widget, read_picture
from sdft.tui.rows import literal
from sdft.tui.screens.ask import Question


class CaptionScreen(Question[bool]):
    """Gives True where the caption was written."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", show=False, priority=True),
        Binding("escape", "leave", show=False, priority=True),
    ]

    class Read(Message):
        def __init__(self, picture: SmallPicture | None, text: str, problem: str) -> None:
            super().__init__()
            self.picture = picture
            self.text = text
            self.problem = problem

    def __init__(self, image: Path, file: Path, *, graphics: str) -> None:
        super().__init__()
        self._image = image
        self._file = file
        self._graphics = graphics
        self._is_read = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide-box"):
            yield Static(literal(str(self._file)), classes="box-title")
            with Horizontal(id="caption-parts"):
                yield Vertical(id="caption-picture")
                yield TextArea("", id="caption-text", soft_wrap=True, compact=True)
            yield Static("", id="wrong")
            yield Static(Content(self.words("caption.keys")), classes="box-hint")

    def on_mount(self) -> None:
        self.query_one(TextArea).focus()
        self._read()

    @work(thread=True, exclusive=True, group="caption", description="read a caption")
    def _read(self) -> None:
        problem = text = ""
        try:
            text = read_words(self._file).text if self._file.exists() else ""
        except (SdftError, OSError) as error:
            problem = str(error)
        picture = read_picture(self._image) if self._graphics != "none" else None
        self.post_message(self.Read(picture, text, problem))

    async def on_caption_screen_read(self, event: Read) -> None:
        event.stop()
        self._is_read = True
        area = self.query_one(TextArea)
        # What was typed before stands where the cursor was: in front.
        selection = area.selection
        area.text = area.text + event.text
        area.selection = selection
        self.query_one("#wrong", Static).update(literal(event.problem))
        place = self.query_one("#caption-picture")
        if event.picture is None:
            await place.mount(Static(literal(str(self._image))))
        elif event.picture.image is None:
            await place.mount(Static(literal(event.picture.problem, "$error")))
        else:
            shown = picture_widget(self._graphics)()
            shown.image = event.picture.image
            shown.styles.width, shown.styles.height = "100%", "auto"
            await place.mount(shown)

    def action_save(self) -> None:
        if not self._is_read:
            # What is in the file would be gone.
            return
        text = self.query_one(TextArea).text.strip()
        try:
            write_bytes(self._file, in_form_of(self._file, text + "\n" if text else ""))
        except SdftError as error:
            self.query_one("#wrong", Static).update(literal(str(error)))
            return
        self.dismiss(True)

    def action_leave(self) -> None:
        self.dismiss(False)
