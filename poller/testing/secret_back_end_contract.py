"""What every back end for secrets must do, as tests to inherit: give the contract a class and a place that holds one.

::

    class TestMyBackEnd(SecretBackEndContract):
        back_end = MyBackEnd

        def keep(self, text: str, tmp_path: Path) -> str:
            (tmp_path / "secrets.ini").write_text(f"[a]\\nkey = {text}\\n")
            return "secrets.ini#a.key"

        missing = "secrets.ini#a.none"
"""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

from poller.secrets import SecretUnreadable
from poller.secrets.back_ends import BackEnd

SECRET = "a-secret-of-the-contract-2026"  # noqa: S105  # nobody's
HOSTILE = ("", " ", "\0", "a\nb", "../../../etc/passwd\n", "x" * 100_000, "%s%n{}", "\ud800")


class SecretBackEndContract:
    """Inherit it in a class whose name begins with ``Test``.

    Attributes:
        back_end: the class to try.
        missing: a name that is accepted and where nothing is kept.
    """

    back_end: ClassVar[type[BackEnd]]
    missing: ClassVar[str]

    def keep(self, text: str, tmp_path: Path) -> str:
        """Keep a text where the back end looks for it, and return its name: what stands after the colon."""
        raise NotImplementedError

    def test_its_form_and_its_wants_are_fit_for_messages(self) -> None:
        """They are what an operator reads."""
        scheme, colon, name = self.back_end.form.partition(":")
        assert colon
        assert name
        assert scheme.islower()
        assert self.back_end.wants
        assert self.back_end.at_once >= 1

    def test_names_are_judged_without_an_error(self, tmp_path: Path) -> None:
        """Whatever stands after the colon."""
        assert self.back_end.accepts(self.keep(SECRET, tmp_path))
        assert self.back_end.accepts(self.missing)
        assert [name[:20] for name in HOSTILE[:4] if self.back_end.accepts(name)] == []
        for name in HOSTILE:
            assert self.back_end.accepts(name) in {True, False}

    def test_what_is_kept_is_read(self, tmp_path: Path) -> None:
        """Once, and again."""
        name = self.keep(SECRET, tmp_path)
        back_end = self.back_end()
        try:
            assert back_end.read(name, tmp_path).removesuffix("\n") == SECRET
            assert back_end.read(name, tmp_path).removesuffix("\n") == SECRET
        finally:
            back_end.close()

    def test_what_is_missing_is_an_error_that_shows_no_secret(self, tmp_path: Path) -> None:
        """Neither the error nor its cause holds what was read on the way."""
        self.keep(SECRET, tmp_path)
        back_end = self.back_end()
        said = ""
        try:
            back_end.read(self.missing, tmp_path)
        except SecretUnreadable as error:
            said = f"{error} {error.remedy} {error.__cause__}"
        finally:
            back_end.close()
        assert said
        assert SECRET not in said

    def test_it_reads_in_any_thread(self, tmp_path: Path) -> None:
        """In as many at the same time as it asks for."""
        name = self.keep(SECRET, tmp_path)
        back_end, found = self.back_end(), list[str]()
        threads = [
            threading.Thread(target=lambda: found.append(back_end.read(name, tmp_path)))
            for _ in range(self.back_end.at_once)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        back_end.close()
        assert [text.removesuffix("\n") for text in found] == [SECRET] * self.back_end.at_once

    def test_to_close_is_harmless(self) -> None:
        """Without a read, and twice."""
        back_end = self.back_end()
        back_end.close()
        back_end.close()
