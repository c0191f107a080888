"""References: the texts of a configuration that name where a secret is kept."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from poller.secrets import back_ends
from poller.secrets.back_ends import BackEnd
from poller.secrets.errors import SecretUnreadable
from poller.secrets.redaction import may_be_secret
from poller.secrets.secret import Secret


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is kept, such as ``env:NAME`` or ``file:PATH``. Made by ``parse_reference``."""

    scheme: str
    name: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.name}"

    @property
    def shown(self) -> str:
        """The reference for messages: of a command only the first word, for nobody knows what the others are."""
        if not back_ends.load(self.scheme).takes_words:
            return str(self)
        first, *others = shlex.split(self.name)
        return f"{self.scheme}:{first}{' ...' if others else ''}"

    def read(self, directory: Path) -> Secret:
        """Return the secret as it is kept, less one line break at its end.

        Args:
            directory: what a relative path is relative to.

        Raises:
            SecretUnreadable: it is not there, is empty, or is not kept safely.
            SecretUnavailable: it cannot be had now.
        """
        from poller.secrets.reading import read_all  # which takes references

        found = read_all([(self, directory)])[self, directory]
        if isinstance(found, SecretUnreadable):
            raise found
        return found


def parse_reference(text: str) -> SecretReference:
    """Return the reference that the text is.

    Raises:
        ValueError: it is none. The message says what to write and never repeats the text: what stands
            in the place of a reference may be the secret itself.
    """
    scheme, colon, name = text.partition(":")
    if not colon or scheme not in back_ends.installed():
        raise ValueError(f"not a secret reference; write {_understood()}, and keep the secret there")
    back_end = _load(scheme)
    if any(map(may_be_secret, {name, *name.split()})):  # of one word once: there are thousands
        raise ValueError(f"what follows {scheme}: looks like the secret itself; write {back_end.form}")
    if not back_end.accepts(name):
        raise ValueError(f"{scheme}: is not followed by {back_end.wants}; write {back_end.form}")
    return SecretReference(scheme, name)


def reference_in(value: object) -> SecretReference:
    """Return the reference that a value of a configuration is: a text, or ``{exec: [pass, show, key]}``.

    Raises:
        ValueError: as for ``parse_reference``.
    """
    if not isinstance(value, dict):
        # Numbers, lists and the rest are refused in the same words, and never repeated.
        return parse_reference(value if isinstance(value, str) else "")
    [scheme, *others] = value or [""]
    if others or scheme not in back_ends.installed():
        return parse_reference("")
    if not (back_end := _load(scheme)).takes_words:
        raise ValueError(f"{scheme}: is followed by no text; write {back_end.form}, without a space")
    words = value[scheme]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{scheme}: is not followed by a list of texts; put each word into quotes")
    return parse_reference(f"{scheme}:{shlex.join(words)}")


def _load(scheme: str) -> type[BackEnd]:
    try:
        return back_ends.load(scheme)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the back end of {scheme}: cannot be loaded: {error}; install what it needs"
        ) from error


def _understood() -> str:
    """List how references are written. Others' back ends are named only, not loaded for it."""
    forms = []
    for scheme, point in back_ends.installed().items():
        ours = point.module.startswith(f"{back_ends.__name__}.")
        forms.append(back_ends.load(scheme).form if ours else f"{scheme}:...")
    return f"{', '.join(forms[:-1])} or {forms[-1]}"
