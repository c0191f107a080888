"""Read many secrets in one go: each once, several at the same time where to read means to wait for others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from poller.secrets import back_ends
from poller.secrets.back_ends import AT_ONCE_MOST, BackEnd
from poller.secrets.errors import SecretUnavailable, SecretUnreadable
from poller.secrets.references import SecretReference
from poller.secrets.secret import Secret

# A reference, and the directory that a relative path in it is relative to.
Wanted = tuple[SecretReference, Path]


def read_all(
    wanted: Iterable[Wanted], *, is_over: Callable[[], bool] = lambda: False
) -> dict[Wanted, Secret | SecretUnreadable]:
    """Return every secret that is wanted, or why it cannot be had, in the order in which they are wanted.

    Blocks. What one back end makes wait does not delay another's; nothing that was read is kept.

    Args:
        is_over: asked before each is read; once nobody wants them any more, the rest is not read.
    """
    places = list(dict.fromkeys(wanted))
    results: list[Secret | SecretUnreadable | None] = [None] * len(places)
    by_scheme: dict[str, list[int]] = {}
    for number, (reference, _) in enumerate(places):
        by_scheme.setdefault(reference.scheme, []).append(number)
    coming: list[tuple[int, Future[Secret | SecretUnreadable]]] = []

    def read(back_end: BackEnd, number: int) -> Secret | SecretUnreadable:
        # A thread that reads keeps the process from ending.
        return SecretUnavailable("nobody wants it any more") if is_over() else _read(back_end, places[number])

    with ExitStack() as stack:
        ours: list[tuple[BackEnd, list[int]]] = []
        for scheme, numbers in by_scheme.items():
            back_end = back_ends.load(scheme)()
            stack.callback(back_end.close)
            if (at_once := min(back_end.at_once, AT_ONCE_MOST)) > 1:
                pool = ThreadPoolExecutor(at_once, thread_name_prefix=f"secrets of {scheme}")
                stack.callback(pool.shutdown, cancel_futures=True)
                coming += [(number, pool.submit(read, back_end, number)) for number in numbers]
            else:
                ours.append((back_end, numbers))
        # Those that this thread reads itself come last: the others are under way by now.
        for back_end, numbers in ours:
            for number in numbers:
                results[number] = read(back_end, number)
        for number, future in coming:
            results[number] = future.result()
    return {place: result for place, result in zip(places, results, strict=True) if result is not None}


def _read(back_end: BackEnd, place: Wanted) -> Secret | SecretUnreadable:
    reference, directory = place
    try:
        text = back_end.read(reference.name, directory)
    except SecretUnreadable as error:
        return error.with_traceback(None)  # its frames may hold what was read
    except Exception as error:  # noqa: BLE001  # a plug-in's; its text may hold what is secret
        message = f"{reference.shown}: its back end raised {type(error).__name__}"
        return SecretUnreadable(message, f"tell the author of {type(back_end).__module__}")
    if not isinstance(text, str):
        message = f"{reference.shown}: its back end returned no text"
        return SecretUnreadable(message, f"tell the author of {type(back_end).__module__}")
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    return Secret(text) if text else SecretUnreadable(f"{reference.shown} is empty")
