"""How a browser gets in: a form that takes the token, and a cookie for those who know it."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from poller.clock import Clock
from poller.server.answers import HTML, Refused, accepts_html, respond
from poller.server.connections import MOST_BODY_BYTES
from poller.server.security import COOKIE, HEADERS, Gate
from poller.server.sessions import LIFE_S, MOST_TRIES, Sessions, Tries

logger = logging.getLogger(__name__)

_FORM_TYPE: Final = "application/x-www-form-urlencoded"
# Under "no-referrer" browsers send "Origin: null" with a form, and we could not tell ours from others.
_REFERRER: Final = {"Referrer-Policy": "same-origin"}
# Whoever is not in yet gets none of the page's files: these few lines are named to browsers by their hash.
_STYLE: Final = """
:root { color-scheme: light dark; }
body {
  margin: 18vh auto 0; max-width: 21rem; padding: 0 1rem; font: 14px/1.45 system-ui, sans-serif;
  color: light-dark(#1b1d1f, #e7e9ea); background: light-dark(#f6f6f4, #101214);
}
h1 { font-size: 1.15rem; letter-spacing: -0.01em; }
label { display: grid; gap: 4px; color: light-dark(#5d6268, #9aa2a9); }
input, button { font: inherit; color: inherit; border-radius: 6px; padding: 6px 10px; border: 1px solid light-dark(#c9c9c4, #3b4249); }
input { background: light-dark(#fff, #16191c); color: light-dark(#1b1d1f, #e7e9ea); }
button { margin-top: 10px; background: light-dark(#2f5bd7, #86a8ff); border-color: transparent; color: light-dark(#fff, #101214); }
:focus-visible { outline: 2px solid light-dark(#2f5bd7, #86a8ff); outline-offset: 1px; }
.wrong { color: light-dark(#b42318, #ff8577); }
"""
_STYLE_HASH: Final = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = {
    "Content-Security-Policy": HEADERS["Content-Security-Policy"].replace(
        "style-src 'self'", f"style-src 'sha256-{_STYLE_HASH}'"
    )
}
_FORM: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>poller: log in</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<h1>poller</h1>
{said}<form method="post" action="/login">
<label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Log in</button>
</form>
</html>
"""


class Login:
    """Answers at ``/login``."""

    def __init__(self, gate: Gate, sessions: Sessions, clock: Clock) -> None:
        self._gate = gate
        self._sessions = sessions
        self._clock = clock
        self._tries = Tries()

    def form(self) -> web.Response:
        """Return the form; where no token is wanted, send to the page."""
        return _form() if self._gate.wants_token else _go_in()

    async def submit(self, request: web.BaseRequest, peer: str, *, at_most_s: float) -> web.Response:
        """Begin a session for somebody who knows the token.

        Raises:
            Refused: it is the wrong one, no form, or too many were wrong.
        """
        if not self._gate.wants_token:
            return _go_in()
        token = await _token(request, at_most_s)
        now_s = self._clock.monotonic_s()
        wait_s = self._tries.wait_s(peer, now_s)
        if wait_s:
            raise Refused(429, "too many wrong tokens; wait a minute", Retry_After=str(math.ceil(wait_s)))
        if not self._gate.is_token(token):
            self._tries.failed(peer, now_s)
            if self._tries.wait_s(peer, now_s):
                logger.warning("somebody tries wrong tokens", extra={"peer": peer, "tries": MOST_TRIES})
            if accepts_html(request):
                return _form("<p class=wrong role=alert>This is not the token.</p>\n", status=401)
            raise Refused(401, "this is not the token")
        response = _go_in()
        response.set_cookie(
            COOKIE,
            self._sessions.begin(now_s),
            max_age=round(LIFE_S),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("Origin", "").startswith("https:"),
        )
        return response


def _form(said: str = "", status: int = 200) -> web.Response:
    page = _FORM.format(said=said, style=_STYLE)
    return respond(page.encode(), HTML, status=status, headers={**_REFERRER, **_POLICY})


def _go_in() -> web.Response:
    return web.Response(status=303, headers={**HEADERS, "Location": "/"})


async def _token(request: web.BaseRequest, at_most_s: float) -> str:
    if request.content_type != _FORM_TYPE:
        raise Refused(415, f"send a form ({_FORM_TYPE})")
    try:
        async with asyncio.timeout(at_most_s):
            body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refused(413, f"a form has at most {MOST_BODY_BYTES} bytes") from None
    except web.RequestPayloadError:
        raise Refused(400, "this is no form") from None
    except TimeoutError:
        raise Refused(408, "the form did not come in time") from None
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=4)
    except ValueError:
        raise Refused(400, "this is no form") from None
    tokens = fields.get("token", [])
    if len(tokens) != 1:
        raise Refused(400, "a form has one field 'token'")
    return tokens[0]
