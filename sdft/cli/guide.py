"""`sdft guide`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sdft.cli.common import CONTEXT, Json, JsonOut, Quiet, new_app
from sdft.cli.output import Output, deliver
from sdft.errors import EnvironmentFault, UserError

app = new_app()


@app.command(name="guide", context_settings=CONTEXT)
def command(
    lang: Annotated[
        str | None,
        typer.Option("--lang", help="en or ja; your own language if not given."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.md", help="Write it to a file instead.")
    ] = None,
    json: Json = False,
    json_out: JsonOut = None,
    quiet: Quiet = False,
) -> None:
    """Print the guide, in English or Japanese, as Markdown."""
    from sdft.files import write_text
    from sdft.guide import guide_text
    from sdft.language import LANGUAGES, language_for

    if lang is not None and lang not in LANGUAGES:
        raise UserError(what=f'no guide in "{lang}"', where="--lang", fix=" or ".join(LANGUAGES))
    language = lang or language_for(os.environ, sys.stdout.encoding)
    text = guide_text(language)
    result = {"language": language, "text": text}
    output = Output(json=json, json_out=json_out, quiet=quiet)
    if out is not None:
        write_text(out, text)
        deliver(result | {"file": out}, str(out), output)
        return
    if not json and language != LANGUAGES[0]:
        _require_letters(text, language)
    deliver(result, text.rstrip("\n"), output)


def _require_letters(text: str, language: str) -> None:
    """Check that this console has the letters of a guide that would be unreadable without them.

    Raises: EnvironmentFault.
    """
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError as error:
        raise EnvironmentFault(
            what=f"this console ({sys.stdout.encoding}) lacks letters of the guide in {language}",
            fix=f"sdft guide --lang {language} --out guide.md",
        ) from error
