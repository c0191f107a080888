"""The sink that docs/sinks.md shows, held to the contract as it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.folder_sink import FolderOptions, FolderSink
from poller.testing.sink_contract import SinkContract

pytestmark = pytest.mark.real_time


class TestFolderSink(SinkContract):
    def make_sink(self, tmp_path: Path) -> FolderSink:
        return FolderSink(FolderOptions(path=tmp_path / "folder"))

    def written(self, tmp_path: Path) -> list[str]:
        return [path.stem for path in sorted((tmp_path / "folder").iterdir())]
