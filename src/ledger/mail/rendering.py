"""Renders mails from templates. An administrator's file stands in for the built-in one of the same name.

A file of theirs that cannot be used is said so, in the log and in `ledger check`, and the built-in one takes its place:
a typing mistake keeps nobody from getting their invoice. `docs/mail.md` lists the templates and their variables.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import structlog
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ledger.billing_settings.mail_kinds import MailKind
from ledger.mail.composing import Text
from ledger.mail.examples import Values, examples, filled
from ledger.mail.words import LANGUAGES, Language, language_of

log = structlog.get_logger("ledger.mail")

BUILT_IN = Path(__file__).with_name("templates")
TEST_MAIL = "test"
ENDINGS = ("subject", "txt", "html")
# Parts of the others: what stands around a mail's own text, and how to pay.
PARTS = ("_frame", "_paying")
# Nobody keeps more files than this for these templates by intention.
_FILES_LOOKED_AT_MAX = 1000


class Templates:
    """The templates of all mails in all languages."""

    def __init__(self, directory: Path | None) -> None:
        """`directory` holds an administrator's own files, as `de/invoice_created.txt`."""
        self._directory = directory
        self._built_in = _environment(BUILT_IN)
        # Nothing is kept, so that a file counts from the moment it is there until it is gone.
        self._preferred = self._built_in if directory is None else _environment(directory, BUILT_IN, kept=0)

    def render(self, name: str, language: Language, values: Values) -> Text:
        """What the mail `name` (a kind, or `TEST_MAIL`) says; `values` that are missing are None."""
        values = filled(values)
        parts = {ending: self._render(f"{language}/{name}.{ending}", values) for ending in ENDINGS}
        return Text(subject=parts["subject"], plain=parts["txt"], html=parts["html"])

    def _render(self, name: str, values: Values) -> str:
        try:
            return self._preferred.get_template(name).render(values)
        except Exception as error:
            if self._directory is None:
                raise
            # A template can fail in any way that a program can, and what it says then may be personal.
            reason = _reason(error) if isinstance(error, TemplateError) else type(error).__name__
            log.error("own mail template cannot be used", template=name, reason=reason)
        return self._built_in.get_template(name).render(values)

    def problems(self) -> list[str]:
        """A sentence for each of the administrator's files that is not used, or cannot be."""
        return list(self._problems())

    @property
    def own_files(self) -> list[str]:
        """The names of the administrator's files that are templates, whether they can be used or not."""
        return [name for name in self._found() if name in self._names]

    @cached_property
    def _names(self) -> frozenset[str]:
        wanted = [*MailKind, TEST_MAIL]
        whole = {f"{language}/{name}.{ending}" for language in LANGUAGES for name in wanted for ending in ENDINGS}
        parts = {
            f"{language}/{part}.{ending}" for language in LANGUAGES for part in PARTS for ending in ("txt", "html")
        }
        return frozenset(whole | parts)

    def _found(self) -> list[str]:
        if self._directory is None:
            return []
        found: list[str] = []
        for language in LANGUAGES:
            # What cannot be looked into has no templates.
            with suppress(OSError):
                paths = sorted((self._directory / language).iterdir())
                found += [f"{language}/{path.name}" for path in paths[:_FILES_LOOKED_AT_MAX]]
        return found

    def _problems(self) -> Iterator[str]:
        if self._directory is None:
            return
        if not self._directory.is_dir():
            yield f"The mail templates in {self._directory} are not used: there is no such directory."
            return
        found = self._found()
        for name in found:
            if name not in self._names and not name.rpartition("/")[2].startswith("."):
                yield f"The mail template {name} is not used: no mail is called so; docs/mail.md lists the names."
            elif name in self._names and not (self._directory / name).is_file():
                yield f"The mail template {name} is not used: it is not a file."
        # What is broken in a part breaks every mail that it is a part of, so each is tried. Parts are read once for it.
        environment = _environment(self._directory, BUILT_IN)
        is_part_own = any(name.rpartition("/")[2].startswith(PARTS) for name in found)
        for name in sorted(self._names):
            is_whole = not name.rpartition("/")[2].startswith("_")
            if is_whole and (name in found or is_part_own) and (reason := _fault(environment, name)) is not None:
                yield f"The mail template {name} cannot be used, the built-in one takes its place: {reason}."


def _fault(environment: Environment, name: str) -> str | None:
    """What is wrong with a template, or None."""
    try:
        template = environment.get_template(name)
        language, _, rest = name.partition("/")
        for values in examples(rest.rpartition(".")[0], language_of(language)):
            template.render(values)
    except Exception as error:
        return _reason(error)
    return None


def _environment(*places: Path, kept: int = 100) -> Environment:
    return ImmutableSandboxedEnvironment(
        cache_size=kept,
        loader=ChoiceLoader([FileSystemLoader(place) for place in places]),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _reason(error: Exception) -> str:
    where = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
    text = " ".join(str(error).split())[:200].rstrip(".")
    return f"{where}{text or type(error).__name__}"
