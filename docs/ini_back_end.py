"""A back end that reads secrets from one INI file: ``ini:PATH#SECTION.KEY``."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import ClassVar

from poller.secrets import SecretUnreadable
from poller.secrets.back_ends import BackEnd
from poller.secrets.back_ends.files import read_file, refuse_unsafe


class IniBackEnd(BackEnd):
    form: ClassVar[str] = "ini:PATH#SECTION.KEY"
    wants: ClassVar[str] = "a path, '#', a section, '.' and a key"

    def __init__(self) -> None:
        self._files: dict[Path, configparser.RawConfigParser] = {}

    @classmethod
    def accepts(cls, name: str) -> bool:
        path, _, entry = name.rpartition("#")
        section, _, key = entry.partition(".")
        return all(part and part == part.strip() and part.isprintable() for part in (path, section, key))

    def read(self, name: str, directory: Path) -> str:
        path, _, entry = name.rpartition("#")
        section, _, key = entry.partition(".")
        value = self._file(directory / path).get(section, key, fallback=None)
        if value is None:
            raise SecretUnreadable(f"there is no {entry} in {path}", f"add {key} = ... below [{section}]")
        return value

    def close(self) -> None:
        self._files.clear()

    def _file(self, path: Path) -> configparser.RawConfigParser:
        if path not in self._files:
            parser = configparser.RawConfigParser()
            try:
                parser.read_string(read_file(path, refuse_unsafe))
            except configparser.Error:  # its text quotes the line
                raise SecretUnreadable(f"{path} is no INI file") from None
            self._files[path] = parser
        return self._files[path]
