"""Where numbers come from: version, commit, command, machine, date."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import licodec
from licodec.bench.interface import package_version


def provenance() -> dict[str, Any]:
    """What a curve's meta says of the run that made it; no names of users, hosts or folders."""
    program = Path(sys.argv[0]).name
    program = "licodec" if program == "__main__.py" else program
    return {
        "licodec.version": licodec.__version__,
        "licodec.commit": commit(),
        "command": shlex.join([program, *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()}",
        "python": platform.python_version(),
        "torch": package_version("torch"),
    }


def commit() -> str | None:
    """The commit of the checkout this package stands in, `+` where it was changed since."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
