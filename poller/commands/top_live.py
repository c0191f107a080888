"""``poller top`` alive: asks the daemon once a second, reads keys, and gives the terminal back at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from poller.commands.keyboard import Keyboard, Keys
from poller.commands.top_screen import frame
from poller.commands.top_view import View
from poller.control import NobodyThere, Refused, ask

REFRESH_S = 1.0
PATIENCE_S = 5.0  # with a daemon that is busy
ESCAPE_S = 0.05  # what follows the escape character so soon belongs to it


async def watch(socket: Path, console: Console) -> int:
    """Show the fleet until somebody quits; return the exit code.

    Raises:
        KeyError, TypeError, ValueError: the daemon's answers are of another shape.
    """
    top = _Top(socket, console)
    with Keyboard(sys.stdin.fileno()) as keyboard:
        return await top.run(keyboard)


class _Top:
    def __init__(self, socket: Path, console: Console) -> None:
        self._socket = socket
        self._console = console
        self._view = View()
        self._keys = Keys()
        self._live = Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self, keyboard: Keyboard) -> int:
        loop = asyncio.get_running_loop()
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGINT: lambda: self._end(0),
            signal.SIGTERM: lambda: self._end(128 + signal.SIGTERM),
            signal.SIGHUP: lambda: self._end(128 + signal.SIGHUP),
            signal.SIGQUIT: lambda: self._end(128 + signal.SIGQUIT),
            signal.SIGWINCH: lambda: self._guarded(self._draw),
            signal.SIGTSTP: lambda: self._guarded(lambda: self._suspend(keyboard)),
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        loop.add_reader(sys.stdin.fileno(), lambda: self._guarded(self._read))
        asking = loop.create_task(self._ask_again_and_again(), name="questions to the daemon")
        try:
            with self._live:
                self._draw()
                waited: set[asyncio.Future[Any]] = {asking, self._ended}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            self._end(128 + signal.SIGHUP)  # the terminal has gone
        finally:
            loop.remove_reader(sys.stdin.fileno())
            for number in handlers:
                loop.remove_signal_handler(number)
            asking.cancel()
        if self._ended.done():
            return self._ended.result()
        error = asking.exception()  # it never returns
        if isinstance(error, OSError) or error is None:
            return 128 + signal.SIGHUP  # it could not draw any more
        raise error

    def _end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Let an error in a callback end everything: the loop would only log it, over the screen."""
        try:
            act()
        except Exception as error:
            if self._ended.done():
                raise
            self._ended.set_exception(error)

    # The daemon ----------------------------------------------------------------------------------

    async def _ask_again_and_again(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._ask()
            except NobodyThere as error:
                self._view.waiting = f"nobody answers at {error}"
            except Refused as error:
                self._view.waiting = str(error)
            except TimeoutError:
                self._view.waiting = "it does not answer"
            self._draw()
            await asyncio.sleep(REFRESH_S)

    async def _ask(self) -> None:
        view = self._view
        view.take_status(await self._answer("fleet.status"))
        view.take_accounts(await self._answer("fleet.accounts", after=view.number))
        view.take_happenings(await self._answer("fleet.happenings", after=view.happened))

    async def _answer(self, verb: str, **arguments: int) -> Any:
        return await ask(self._socket, verb, arguments)

    # The terminal --------------------------------------------------------------------------------

    def _draw(self) -> None:
        if self._live.is_started:
            size = self._console.size
            self._live.update(Group(*frame(self._view, size.width, size.height)), refresh=True)

    def _read(self) -> None:
        try:
            sent = os.read(sys.stdin.fileno(), 1024)
        except OSError:
            sent = b""
        if not sent:
            self._end(128 + signal.SIGHUP)
            return
        self._press(self._keys.feed(sent))
        if self._keys.is_open:
            asyncio.get_running_loop().call_later(
                ESCAPE_S, self._guarded, lambda: self._press(self._keys.flush())
            )

    def _press(self, keys: list[str]) -> None:
        for key in keys:
            if not self._view.press(key, self._console.size.height):
                self._end(0)
        if keys:
            self._draw()

    def _suspend(self, keyboard: Keyboard) -> None:
        """Stop as Ctrl-Z asks, with the terminal as the shell wants it; go on when we are continued."""
        self._live.stop()
        keyboard.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        with suppress(OSError):
            keyboard.enter()
        self._live.start(refresh=True)
        self._draw()
