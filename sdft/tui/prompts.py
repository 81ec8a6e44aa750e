"""The wizard as plain lines: the same questions, the same checks, the same files.

For screen readers, dumb terminals, and input from a pipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sdft.config.preset import PRESETS
from sdft.config.values import resolve_path
from sdft.errors import Problem, UserError
from sdft.language import Words
from sdft.tui.commands import shown_line
from sdft.tui.draft import Draft
from sdft.tui.draft_values import (
    check,
    dataset_names,
    image_dirs,
    stated,
    typed_of,
    with_preset,
    with_setting,
)
from sdft.tui.folder_look import FolderCounts, look_at, with_folder
from sdft.tui.keeping import Keeping
from sdft.tui.model_look import look_at_model
from sdft.tui.project import opened
from sdft.tui.starting import start_training, train_words
from sdft.views.text import visible

Ask = Callable[[str], str]
Say = Callable[[str], None]

MOST_TRIES = 5
"""Wrong answers to one question, after which what is wrong is left for the end."""


def ask_line(question: str) -> str:
    """Read one line. Raises: UserError where there is none left."""
    try:
        return input(question)
    except EOFError as error:
        raise UserError(
            what="the answers ended before the questions", fix="files were not written"
        ) from error


def say_line(text: str) -> None:
    print(visible(text), flush=True)  # noqa: T201 - the questions are a person's dialogue


def ask_all(
    path: Path | None,
    cwd: Path,
    words: Words,
    *,
    ask: Ask = ask_line,
    say: Say = say_line,
    keeping: Keeping | None = None,
) -> Draft | None:
    """Ask everything, write the files, start on request; None where problems are left.

    Raises: SdftError where files cannot be read or written, or the answers end.
    """
    keeping = keeping or Keeping()
    prompts = Prompts(opened(path, cwd), cwd, words, ask, say)
    say(words("prompt.hello"))
    kept = keeping.kept(prompts.draft)
    if kept is not None and prompts.yes("prompt.kept"):
        prompts.draft = kept
    prompts.ask_settings()
    checked = check(prompts.draft, cwd)
    if checked.config is None:
        keeping.keep(prompts.draft)
        raise UserError(problems=checked.problems)
    saved = prompts.draft.saved()
    keeping.add_recent(saved)
    keeping.forget(saved)
    say(words("prompt.written", paths=", ".join(str(file.path) for file in saved.files)))
    if prompts.yes("prompt.start"):
        started = start_training(saved, checked.config, cwd)
        say(words("prompt.started", line=started.line, run=started.run.path))
    else:
        say(words("prompt.line", line=shown_line(train_words(saved, cwd))))
    return saved


class Prompts:
    """Asks one question after the other and edits the draft."""

    def __init__(self, draft: Draft, cwd: Path, words: Words, ask: Ask, say: Say) -> None:
        self.draft = draft
        self._cwd = cwd
        self._words = words
        self._ask = ask
        self._say = say
        self._dataset = 0

    def ask_settings(self) -> None:
        self._setting("pretrained_model_name_or_path", "prompt.model", tell=self._tell_model)
        self._preset()
        self._which_dataset()
        self._folders()
        for name, question in (
            ("caption_extension", "prompt.extension"),
            ("resolution", "prompt.resolution"),
            ("max_train_epochs", "prompt.epochs"),
            ("learning_rate", "prompt.rate"),
            ("output_dir", "prompt.output"),
            ("output_name", "prompt.name"),
        ):
            self._setting(name, question)
        self._what_is_left()

    def yes(self, question: str) -> bool:
        return self._ask(f"{self._words(question)} ").strip().lower() in ("y", "yes", "はい")

    def _question(self, words: str, present: str) -> str:
        shown = f" [{visible(present)}]" if present else ""
        return self._ask(f"{words}{shown}: ").strip()

    def _setting(
        self, name: str, question: str, *, tell: Callable[[str], None] = lambda _value: None
    ) -> None:
        words = self._words(question) if question in self._words else name
        for _ in range(MOST_TRIES):
            typed = self._question(words, typed_of(self._stated(self.draft, name)))
            changed = self._with(name, typed) if typed else self.draft
            problem = check(changed, self._cwd).problem_of(name, self._dataset)
            if problem is None:
                self.draft = changed
                tell(typed_of(self._stated(changed, name)))
                return
            self._say_problem(problem)

    def _stated(self, draft: Draft, name: str) -> object:
        return stated(draft, name, dataset=self._dataset).value

    def _with(self, name: str, typed: str) -> Draft:
        return with_setting(self.draft, name, typed, dataset=self._dataset)

    def _say_problem(self, problem: Problem) -> None:
        self._say(self._words("prompt.problem", problem=self._words.problem(problem)))

    def _tell_model(self, typed: str) -> None:
        if typed:
            found = look_at_model(resolve_path(typed, self._cwd, self.draft.config.path.parent))
            self._say(found.facts.title if found.facts else found.problem)

    def _preset(self) -> None:
        question = self._words("prompt.preset", choices=", ".join(PRESETS))
        present = typed_of(stated(self.draft, "preset").value)
        for _ in range(MOST_TRIES):
            typed = self._question(question, present)
            if not typed or typed in PRESETS:
                self.draft = with_preset(self.draft, typed) if typed else self.draft
                return
            self._say(self._words("prompt.problem", problem=typed))

    def _which_dataset(self) -> None:
        """Ask which of several datasets the questions are about."""
        names = dataset_names(self.draft)
        if len(names) < 2:
            return
        for name in names:
            self._say(f"- {name}")
        question = self._words("prompt.dataset", number=len(names))
        for _ in range(MOST_TRIES):
            typed = self._question(question, str(self._dataset + 1)) or str(self._dataset + 1)
            if typed.isdecimal() and 1 <= int(typed) <= len(names):
                self._dataset = int(typed) - 1
                return
            self._say(self._words("prompt.problem", problem=typed))

    def _folders(self) -> None:
        question = "prompt.more" if image_dirs(self.draft, self._dataset) else "prompt.images"
        for _ in range(100):
            for known in image_dirs(self.draft, self._dataset):
                self._say(f"- {known}")
            typed = self._question(self._words(question), "")
            if not typed:
                return
            counts = self._counts(resolve_path(typed, self._cwd, None))
            if counts is not None:
                self.draft = with_folder(self.draft, counts, self._dataset)
                question = "prompt.more"

    def _counts(self, path: Path) -> FolderCounts | None:
        *_, counts = look_at(path)
        if counts.problem:
            self._say(self._words("prompt.problem", problem=f"{path}: {counts.problem}"))
            return None
        if not counts.images and not counts.folders:
            self._say(self._words("folders.empty_folder"))
            return None
        self._say(f"{self._words('folders.images')}: {counts.images:,}")
        for kind, number in counts.beside[:3]:
            self._say(f"{self._words('folders.captions', kind=kind)}: {number:,}")
        return counts

    def _what_is_left(self) -> None:
        """Ask again for every setting that something is still wrong with."""
        asked: Sequence[tuple[str, int | None]] = ()
        while True:
            checked = check(self.draft, self._cwd)
            left = zip(checked.fields, checked.datasets, checked.problems, strict=True)
            fields = [row for row in left if row[0] and row[:2] not in asked]
            if not fields:
                return
            name, dataset, problem = fields[0]
            self._dataset = self._dataset if dataset is None else dataset
            self._say_problem(problem)
            self._setting(name, name)
            asked = [*asked, (name, dataset)]
