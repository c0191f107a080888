"""Secrets: the type that never shows itself, the references that name where one is kept, redaction."""

from __future__ import annotations

import base64
import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

HIDDEN: Final = "***"

# Redaction looks for pieces of this many characters. Shorter ones occur in ordinary sentences: to
# hide those would not only spoil the log, the gaps would spell out the password.
_PIECE: Final = 12
# A whole secret of 8 to 11 characters is hidden as a word of its own, if it cannot be an everyday word.
_SHORT: Final = 8
_INSIDE = r"[^\s\"'`\\:@/?&=,;()\[\]{}<>]"
_TOKEN = re.compile(f"(?<!{_INSIDE}){_INSIDE}{{8,11}}(?!{_INSIDE})")
_REST = re.compile(r"[A-Za-z0-9+/=_\-]*")
_SIGNATURE = re.compile(r"(signature=)[A-Za-z0-9%+/=_.~\-]+", re.IGNORECASE)
_PEM_BOUNDARY = "-----"

_MAX_FILE_BYTES: Final = 64 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

_pieces: set[str] = set()
_words: set[str] = set()


class Secret:
    """A text that must not be seen. Only ``reveal`` shows it; ``repr``, ``str`` and formatting do not.

    Compares by value (so that one key under two names is found), in constant time is not needed:
    both sides are our own. From its creation on, ``redact`` hides it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        _remember(text)

    def reveal(self) -> str:
        """Return the text. Call it where it is used, at the last moment, and keep no copy."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({HIDDEN!r})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


def redact(text: str) -> str:
    """Return the text without any secret this process has read, and without signatures.

    The last line of defence, applied to every formatted log line; its cost grows with the text and
    not with the number of secrets. A secret of 12 characters or more is found wherever it stands,
    inside a longer word and cut off too, so long as 12 of its characters in a row are there. A shorter
    one is found only as a word of its own, from 8 characters on, and only if it mixes letters with
    digits; below that nothing is done, because everyday words would vanish.
    """
    text = _SIGNATURE.sub(rf"\g<1>{HIDDEN}", text)
    if _pieces:
        text = _without_pieces(text)
    if _words:
        text = _TOKEN.sub(lambda match: HIDDEN if match.group() in _words else match.group(), text)
    return text


def _without_pieces(text: str) -> str:
    hits = [at for at in range(len(text) - _PIECE + 1) if text[at : at + _PIECE] in _pieces]
    if not hits:
        return text
    parts: list[str] = []
    done = 0
    for at in hits:
        if at > done or not parts:
            parts += (text[done:at], HIDDEN)
        # What stands between two remembered pieces of one secret is hidden with them.
        rest = _REST.match(text, at + _PIECE)
        done = max(done, at + _PIECE, rest.end() if rest else 0)
    parts.append(text[done:])
    return "".join(parts)


def _remember(text: str) -> None:
    if _PEM_BOUNDARY in text:
        _remember_pem(text)
    elif "://" in text:
        _remember_url(text)
    else:
        _remember_part(text)


def _remember_pem(text: str) -> None:
    """Remember both ends of each line: what is between goes with them, and there may be 10,000 such files.

    Not the boundary lines, which everybody's key files share.
    """
    for line in text.splitlines():
        if _PEM_BOUNDARY not in line and len(line) >= _PIECE:
            _pieces.update((line[:_PIECE], line[-_PIECE:]))


def _remember_url(text: str) -> None:
    """Remember the secret parts of an URL: not its scheme and host, which a log needs to name."""
    try:
        url = urlsplit(text)
        user, password = unquote(url.username or ""), unquote(url.password or "")
    except ValueError:
        _remember_part(text)
        return
    _remember_part(password or user)
    if password:
        pair = f"{user}:{password}".encode(errors="surrogatepass")
        _remember_part(base64.b64encode(pair).decode())  # as the Authorization header has it
    # A token may stand in the path or the query; the name of a database or a stream, too.
    for part in re.split("[/&=]", f"{url.path}&{url.query}"):
        if _is_no_everyday_word(part):
            _remember_part(part)


def _remember_part(text: str) -> None:
    for form in {text, quote(text, safe="", errors="surrogatepass")}:
        if len(form) >= _PIECE:
            _pieces.update(form[at : at + _PIECE] for at in range(0, len(form) - _PIECE + 1, _PIECE))
            _pieces.add(form[-_PIECE:])
        elif len(form) >= _SHORT and _is_no_everyday_word(form) and _TOKEN.fullmatch(form):
            _words.add(form)


def _is_no_everyday_word(text: str) -> bool:
    return any(sign.isdigit() for sign in text) and any(sign.isalpha() for sign in text)


def may_be_secret(text: str) -> bool:
    """Tell whether a text in the place of a name may be the secret itself, so that no message repeats it.

    The exchange's keys are 64 letters and digits.
    """
    return "-----BEGIN" in text or re.fullmatch(r"[A-Za-z0-9+=]{40,}", text) is not None


class SecretUnreadable(ValueError):
    """A secret cannot be had from where its reference points. The text never holds any of it.

    Attributes:
        remedy: what to do about it; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is kept: ``env:NAME`` or ``file:PATH``. Made by ``parse_reference``."""

    scheme: str
    name: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.name}"

    def read(self, directory: Path) -> Secret:
        """Return the secret as it is kept, less one line break at its end.

        Args:
            directory: what a relative path is relative to.

        Raises:
            SecretUnreadable: it is not there, is empty, or is not kept safely.
        """
        text = _BACK_ENDS[self.scheme].read(self.name, directory)
        text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
        if not text:
            raise SecretUnreadable(f"{self} is empty")
        return Secret(text)


def parse_reference(text: str) -> SecretReference:
    """Return the reference that the text is.

    Raises:
        ValueError: it is none. The message says what to write and never repeats the text: what stands
            in the place of a reference may be the secret itself.
    """
    scheme, colon, name = text.partition(":")
    if not colon or scheme not in _BACK_ENDS:
        raise ValueError(f"not a secret reference; write {_understood()}, and keep the secret there")
    if may_be_secret(name):
        raise ValueError(f"what follows {scheme}: looks like the secret itself; write {_understood()}")
    if not _BACK_ENDS[scheme].accepts(name):
        raise ValueError(f"{scheme}: is not followed by {_BACK_ENDS[scheme].wants}; write {_understood()}")
    return SecretReference(scheme, name)


@dataclass(frozen=True, slots=True)
class _BackEnd:
    """One place where secrets are kept.

    Attributes:
        form: how a reference to it is written.
        wants: what stands after the colon, for messages.
        accepts: tell whether a text can stand there. No I/O.
        read: return the secret's text. Raises ``SecretUnreadable``.
    """

    form: str
    wants: str
    accepts: Callable[[str], bool]
    read: Callable[[str, Path], str]


def _understood() -> str:
    return " or ".join(back_end.form for back_end in _BACK_ENDS.values())


def _is_path(name: str) -> bool:
    return bool(name) and name == name.strip() and name.isprintable()


def _is_variable(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _read_variable(name: str, directory: Path) -> str:
    text = os.environ.get(name)
    if text is None:
        raise SecretUnreadable(f"environment variable {name} is not set")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SecretUnreadable(f"environment variable {name} is not UTF-8 text") from None
    return text


def _read_file(name: str, directory: Path) -> str:
    path = directory / name
    shown = shlex.quote(str(path))
    try:
        # Without O_NONBLOCK to open a named pipe would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise SecretUnreadable(f"there is no file {shown}") from None
    except (OSError, ValueError) as error:
        raise SecretUnreadable(f"file {shown} cannot be read: {_reason(error)}") from None
    try:
        # The open file is judged, not the path: nobody can swap it in between, and of a symbolic
        # link it is the target.
        _refuse_unsafe(os.fstat(handle), shown)
        content = os.read(handle, _MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SecretUnreadable(f"file {shown} cannot be read: {_reason(error)}") from None
    finally:
        os.close(handle)
    if len(content) > _MAX_FILE_BYTES:
        raise SecretUnreadable(f"file {shown} has more than {_MAX_FILE_BYTES} bytes: that is no secret")
    if content.startswith(b"\xef\xbb\xbf"):
        raise SecretUnreadable(f"file {shown} begins with a byte order mark", "save it without one")
    try:
        return content.decode()
    except UnicodeDecodeError:
        # The codec's own text would quote the bytes.
        raise SecretUnreadable(f"file {shown} is not UTF-8 text") from None


def _refuse_unsafe(status: os.stat_result, shown: str) -> None:
    """Raise unless only we (or root) can read the file."""
    if not stat.S_ISREG(status.st_mode):
        raise SecretUnreadable(f"{shown} is not a regular file")
    ours = os.geteuid()
    if status.st_uid not in {ours, 0}:
        raise SecretUnreadable(
            f"file {shown} belongs to another user (uid {status.st_uid})", f"run: chown {ours} {shown}"
        )
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        # Root's file with nothing for others would be closed to us as well.
        take = "" if status.st_uid == ours else f"chown {ours} {shown} && "
        raise SecretUnreadable(
            f"file {shown} is open to others (mode {mode:04o})", f"run: {take}chmod 600 {shown}"
        )


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else "not a path"


# A further place to keep secrets is one line here.
_BACK_ENDS: Final[Mapping[str, _BackEnd]] = {
    "env": _BackEnd("env:NAME", "the name of an environment variable", _is_variable, _read_variable),
    "file": _BackEnd("file:PATH", "the path of a file", _is_path, _read_file),
}
