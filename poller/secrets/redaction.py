"""Redaction: what was read as a secret is taken out of every text that is shown."""

from __future__ import annotations

import base64
import re
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
_KEY_LIKE = re.compile(r"[A-Za-z0-9+=]{40,}")
_PEM_BOUNDARY = "-----"

# Not the texts but their hashes, which Python salts anew in every process: to hide a secret is no
# reason to keep it.
_pieces: set[int] = set()
_words: set[int] = set()


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
        text = _TOKEN.sub(lambda match: HIDDEN if hash(match.group()) in _words else match.group(), text)
    return text


def _without_pieces(text: str) -> str:
    hits = [at for at in range(len(text) - _PIECE + 1) if hash(text[at : at + _PIECE]) in _pieces]
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


def remember(text: str) -> None:
    """Let ``redact`` hide a secret, in the forms in which it may be written, from now on."""
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
            _pieces.update((hash(line[:_PIECE]), hash(line[-_PIECE:])))


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
    is_plain = text.isascii() and text.isalnum()  # as API keys are: it is quoted as itself
    for form in {text} if is_plain else {text, quote(text, safe="", errors="surrogatepass")}:
        if len(form) >= _PIECE:
            _pieces.update(hash(form[at : at + _PIECE]) for at in range(0, len(form) - _PIECE + 1, _PIECE))
            _pieces.add(hash(form[-_PIECE:]))
        elif len(form) >= _SHORT and _is_no_everyday_word(form) and _TOKEN.fullmatch(form):
            _words.add(hash(form))


def _is_no_everyday_word(text: str) -> bool:
    return any(sign.isdigit() for sign in text) and any(sign.isalpha() for sign in text)


def may_be_secret(text: str) -> bool:
    """Tell whether a text in the place of a name may be the secret itself, so that no message repeats it.

    The exchange's keys are 64 letters and digits.
    """
    return "-----BEGIN" in text or _KEY_LIKE.fullmatch(text) is not None
