"""The buckets: how many images each has, what becomes of every image, and what is cut off it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.worker import get_current_worker

from sdft.tui.commands import Done
from sdft.tui.fates_file import read_some
from sdft.tui.panes.fields import FIELDS_OF
from sdft.tui.panes.pane import SLICE, Make
from sdft.tui.panes.working import WorkingPane, number, problem_words
from sdft.tui.picture import SmallPicture, picture_widget, read_picture
from sdft.tui.rows import literal
from sdft.tui.widgets.ground import Column, Row, Scroll
from sdft.tui.widgets.row_list import RowList

if TYPE_CHECKING:
    from PIL.Image import Image

FIELDS = FIELDS_OF["buckets"]


NUM_IMAGES_SHOWN = 500
BAR_COLUMNS = 20
WIDE_COLUMNS = 100
SHADE = 0.25
"""How bright what is cut off is drawn."""


class BucketsPane(WorkingPane):
    """Settings, the table with its bars, the images of one bucket, one image with its crop."""

    HAS_DATASETS: ClassVar = True

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f8", "again", "key.again", show=False)]

    class Fates(Message):
        def __init__(self, fates: Sequence[dict[str, Any]]) -> None:
            super().__init__()
            self.fates = fates

    class Drawn(Message):
        def __init__(self, picture: SmallPicture) -> None:
            super().__init__()
            self.picture = picture

    def __init__(self) -> None:
        super().__init__("step-buckets")
        self.rows: list[dict[str, Any]] = []
        self.fates: Sequence[dict[str, Any]] = ()

    def compose(self) -> ComposeResult:
        yield Static(Content(self.words("buckets.title")), classes="pane-title")
        with Row():
            with Scroll(id="buckets-fields", classes="fields", can_focus=False):
                yield from self.fields(FIELDS[:SLICE])
            with Column(id="buckets-right", classes="second"):
                yield Static("", id="buckets-counts", classes="counts")
                yield RowList(id="bucket-rows")
                with Row(id="bucket-images-part"):
                    yield RowList(id="bucket-images")
                    with Column(id="crop-part"):
                        yield Static("", id="crop-words")
                        yield Column(id="crop-picture")

    def later(self) -> tuple[str, Sequence[Make]]:
        return "#buckets-fields", self.later_fields(FIELDS)

    def command(self, scratch: Path) -> Sequence[str]:
        fates = str(scratch / "fates.jsonl")
        return ["bucket", str(scratch / "step-buckets.toml"), "--fates", fates]

    def waits(self, *, blocked: bool) -> None:
        name = "wizard.blocked" if blocked else "wizard.asking"
        self.query_one("#buckets-counts", Static).update(Content(self.words(name)))

    def came(self, done: Done) -> None:
        counts = self.query_one("#buckets-counts", Static)
        if done.code:
            self.rows = []
            self.query_one("#bucket-rows", RowList).fill((), ())
            self.query_one("#bucket-images", RowList).fill((), ())
            counts.update(literal(problem_words(done.problems, self.words), "$error"))
            return
        result = done.result
        counts.update(
            Content(
                self.words(
                    "buckets.counts",
                    used=f"{number(result, 'used'):,}",
                    rejected=number(result, "rejected"),
                    batches=f"{number(result, 'batches'):,}",
                    waste=f"{float(result.get('waste') or 0):.0%}",
                    cut=f"{float(result.get('mean_crop') or 0):.0%}",
                )
            )
        )
        self.rows = list(result.get("buckets", []))
        self.wizard.batches = tuple(int(row["batches"]) for row in self.rows)
        most = max((row["images"] for row in self.rows), default=1)
        columns = BAR_COLUMNS if self.app.size.width >= WIDE_COLUMNS else BAR_COLUMNS // 2
        rows = [_bucket_row(row, most, columns) for row in self.rows]
        keys = [_sides(row["resolution"]) for row in self.rows]
        if number(result, "rejected"):
            rows.append(literal(self.words("buckets.rejected"), "$warning"))
            keys.append("")
        self.query_one("#bucket-rows", RowList).fill(rows, keys)

    @on(OptionList.OptionHighlighted, "#bucket-rows")
    def _bucket(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if self.done is None or self.done.code:
            return
        path = Path(str(self.done.result["fates"]))
        at = event.option_index
        size = tuple(self.rows[at]["resolution"]) if at < len(self.rows) else None
        self._read(path, size)

    @work(thread=True, exclusive=True, group="fates", description="read fates")
    def _read(self, path: Path, bucket: tuple[int, int] | None) -> None:
        worker = get_current_worker()
        try:
            fates = read_some(
                path,
                bucket=bucket,
                most=NUM_IMAGES_SHOWN,
                is_cancelled=lambda: worker.is_cancelled,
            )
        except (OSError, ValueError, KeyError):
            # Written anew by the next plan, which shows itself when it is done.
            return
        if not worker.is_cancelled:
            self.post_message(self.Fates(fates))

    def on_buckets_pane_fates(self, event: Fates) -> None:
        event.stop()
        self.fates = event.fates
        paths = [str(one["path"]) for one in event.fates]
        rows = [literal(Path(path).name) for path in paths]
        self.query_one("#bucket-images", RowList).fill(rows, paths)

    @on(OptionList.OptionHighlighted, "#bucket-images")
    def _image(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if event.option_index >= len(self.fates):
            return
        fate = self.fates[event.option_index]
        self.query_one("#crop-words", Static).update(self._fate_words(fate))
        if self.wizard.graphics != "none":
            self._draw(fate)

    def _fate_words(self, fate: dict[str, Any]) -> Content:
        if fate["fate"] != "used":
            return literal(str(fate["reason"]), "$warning")
        cut = _cut_share(fate)
        return literal(
            self.words(
                "buckets.fate",
                size=_sides(fate["size"]),
                resized=_sides(fate["resized"]),
                bucket=_sides(fate["bucket"]),
                cut=f"{cut:.0%}",
            )
        )

    @work(thread=True, exclusive=True, group="crop", description="draw a crop")
    def _draw(self, fate: dict[str, Any]) -> None:
        worker = get_current_worker()
        path = Path(str(fate["path"]))
        picture = read_picture(path if path.is_absolute() else self.cwd / path)
        if picture.image is not None and fate["crop"] and fate["resized"]:
            image = shaded(picture.image, fate["resized"], fate["crop"])
            picture = SmallPicture(path=picture.path, image=image)
        if not worker.is_cancelled:
            self.post_message(self.Drawn(picture))

    async def on_buckets_pane_drawn(self, event: Drawn) -> None:
        event.stop()
        place = self.query_one("#crop-picture")
        await place.remove_children()
        if event.picture.image is None:
            await place.mount(Static(literal(event.picture.problem, "$error")))
            return
        shown = picture_widget(self.wizard.graphics)()
        shown.image = event.picture.image
        width, height = event.picture.image.size
        rows = max(place.size.height, 1)
        # A cell is about twice as high as it is wide.
        if width * rows * 2 <= height * place.size.width:
            shown.styles.height, shown.styles.width = rows, "auto"
        else:
            shown.styles.width, shown.styles.height = max(place.size.width, 1), "auto"
        await place.mount(shown)

    def action_again(self) -> None:
        self.again()


def shaded(image: Image, resized: Sequence[int], crop: Sequence[int]) -> Image:
    """Return a picture with what is cut off in the dark. `crop` is in pixels of `resized`."""
    from PIL import Image as Pillow

    across, down = image.width / resized[0], image.height / resized[1]
    box = tuple(round(side * (across, down)[at % 2]) for at, side in enumerate(crop))
    dark = Pillow.blend(Pillow.new(image.mode, image.size), image, SHADE)
    left, top, right, bottom = box
    dark.paste(image.crop((left, top, right, bottom)), (left, top))
    return dark


def _bucket_row(row: dict[str, Any], most: int, columns: int) -> Content:
    bar = "█" * max(round(columns * row["images"] / most), 1)
    return Content.assemble(
        f"{_sides(row['resolution']):>11} {row['images']:7,} ",
        Content.styled(bar, "$primary"),
        Content.styled(f" {row['mean_crop']:.0%}", "$foreground-muted"),
    )


def _sides(sides: Sequence[int] | None) -> str:
    return f"{sides[0]} x {sides[1]}" if sides else "-"


def _cut_share(fate: dict[str, Any]) -> float:
    left, top, right, bottom = fate["crop"]
    width, height = fate["resized"]
    return 1 - float((right - left) * (bottom - top)) / float(width * height)
