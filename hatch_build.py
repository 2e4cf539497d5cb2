"""Build hook: the man page, generated from the command line, goes into the wheel."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPage(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        from licodec.cli.reference import man_page

        self._folder = tempfile.TemporaryDirectory()
        page = Path(self._folder.name, "licodec.1")
        page.write_text(man_page(), "utf-8")
        build_data["shared_data"][str(page)] = "share/man/man1/licodec.1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._folder.cleanup()
