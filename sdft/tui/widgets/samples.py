"""The pictures that a run drew: one at a time, along the steps, two side by side on request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static
from textual.worker import get_current_worker

from sdft.events import SampleSaved
from sdft.language import Words
from sdft.rundir import RunDir
from sdft.tui.picture import SmallPicture, picture_widget, read_picture
from sdft.tui.rows import literal

CAPTION_ROWS = 3
"""Two of the caption, one in case of a problem."""


class Samples(Vertical, can_focus=True):
    """Assign `samples`; `scrub`, `next_prompt` and `keep` move through them."""

    samples: reactive[tuple[SampleSaved, ...]] = reactive(())
    shown: reactive[SampleSaved | None] = reactive(None)
    kept: reactive[SampleSaved | None] = reactive(None)

    class Read(Message):
        """A picture was decoded for one of the two places."""

        def __init__(self, place: str, picture: SmallPicture) -> None:
            super().__init__()
            self.place = place
            self.picture = picture

    def __init__(self, *, words: Words, graphics: str, id: str | None = None) -> None:
        super().__init__(id=id, classes="samples")
        self._words = words
        self._graphics = graphics
        self._run: RunDir | None = None
        self._follows = True

    def compose(self) -> ComposeResult:
        yield Static(Content(self._words("samples.empty")), id="no-samples")
        with Horizontal(id="pictures"):
            for place in ("kept", "shown"):
                with Vertical(id=f"place-{place}", classes="place"):
                    yield Static("", id=f"caption-{place}", classes="caption")
                    yield Static("", id=f"problem-{place}", classes="problem")

    def show(self, run: RunDir, samples: tuple[SampleSaved, ...]) -> None:
        """Take the run's pictures; the newest one comes up unless the person went back."""
        self._run = run
        self.samples = samples

    def scrub(self, by: int) -> None:
        """Go to the same prompt's picture `by` steps further; stays within the ends."""
        steps = sorted({sample.step for sample in self.samples})
        if self.shown is None or self.shown.step not in steps:
            return
        position = min(max(steps.index(self.shown.step) + by, 0), len(steps) - 1)
        self._follows = position == len(steps) - 1
        number = self._of_step(self.shown.step).index(self.shown)
        self._show_number(steps[position], number)

    def next_prompt(self, by: int) -> None:
        """Go to another picture of the same step, round and round."""
        if self.shown is not None and self.shown in self.samples:
            same_step = self._of_step(self.shown.step)
            self._show_number(self.shown.step, (same_step.index(self.shown) + by) % len(same_step))

    def keep(self) -> None:
        """Hold the shown picture for comparison, or let the held one go."""
        self.kept = self.shown if self.kept is None else None

    def watch_samples(self) -> None:
        if not self.samples:
            self.shown = self.kept = None
        elif self.shown is None or self.shown not in self.samples:
            self._show_number(self.samples[-1].step, 0)
        elif self._follows:
            number = self._of_step(self.shown.step).index(self.shown)
            self._show_number(max(sample.step for sample in self.samples), number)
        else:
            self._draw_caption("shown", self.shown)
        if self.is_mounted:
            self._hide_empty()

    def on_resize(self) -> None:
        self.watch_shown()
        self.watch_kept()

    def watch_shown(self) -> None:
        self._draw("shown", self.shown)

    def watch_kept(self) -> None:
        self._draw("kept", self.kept)

    def on_mount(self) -> None:
        self._hide_empty()

    async def on_samples_read(self, event: Read) -> None:
        event.stop()
        if self._graphics == "none":
            words = self._words("samples.no_graphics", path=event.picture.path)
            self.query_one(f"#problem-{event.place}", Static).update(literal(words))
            return
        place = self.query_one(f"#place-{event.place}")
        problem = place.query_one(".problem", Static)
        if event.picture.image is None:
            words = self._words("samples.unreadable", reason=event.picture.problem)
            problem.update(literal(words))
        else:
            problem.update("")
        image = await self._image_of(event.place)
        image.image = event.picture.image
        if event.picture.image is not None:
            self._fit(image, place.size, event.picture.image.size)

    async def _image_of(self, place: str) -> Any:
        found = self.query(f"#image-{place}")
        if found:
            return found.first()
        image = picture_widget(self._graphics)(id=f"image-{place}")
        await self.query_one(f"#place-{place}").mount(image)
        return image

    @staticmethod
    def _fit(image: Any, place: Size, picture: tuple[int, int]) -> None:
        """Fill the place in one direction; a cell is about twice as high as it is wide."""
        height = max(place.height - CAPTION_ROWS, 1)
        if picture[0] * 2 * height <= picture[1] * place.width:
            image.styles.height, image.styles.width = height, "auto"
        else:
            image.styles.width, image.styles.height = place.width - 1, "auto"

    def _show_number(self, step: int, number: int) -> None:
        same_step = self._of_step(step)
        self.shown = same_step[min(number, len(same_step) - 1)]

    def _of_step(self, step: int) -> Sequence[SampleSaved]:
        return [sample for sample in self.samples if sample.step == step]

    def _hide_empty(self) -> None:
        self.query_one("#no-samples").display = not self.samples
        self.query_one("#pictures").display = bool(self.samples)
        self.query_one("#place-kept").display = self.kept is not None

    def _draw(self, place: str, sample: SampleSaved | None) -> None:
        if not self.is_mounted:
            return
        self._hide_empty()
        if sample is not None and self._run is not None:
            self._draw_caption(place, sample)
            self._read(place, picture_path(self._run, sample))

    def _draw_caption(self, place: str, sample: SampleSaved) -> None:
        same_step = self._of_step(sample.step)
        if place == "kept" or sample not in same_step:
            words = self._words("samples.compared", step=sample.step)
        else:
            words = self._words(
                "samples.caption",
                step=sample.step,
                number=same_step.index(sample) + 1,
                total=len(same_step),
                seed=sample.seed,
            )
        caption = Content.assemble(
            Content.styled(words, "bold"), "\n", literal(" ".join(sample.prompt.split()))
        )
        self.query_one(f"#caption-{place}", Static).update(caption)

    @work(thread=True, group="pictures", description="read a picture")
    def _read(self, place: str, path: Path) -> None:
        picture = read_picture(path)
        wanted = self.shown if place == "shown" else self.kept
        still_wanted = (
            wanted is not None and self._run is not None and picture_path(self._run, wanted) == path
        )
        if still_wanted and not get_current_worker().is_cancelled:
            self.post_message(self.Read(place, picture))


def picture_path(run: RunDir, sample: SampleSaved) -> Path:
    """Return where a picture is, also where the whole folder was moved or copied."""
    path = Path(sample.path)
    return path if path.is_absolute() and path.is_file() else run.samples / path.name
