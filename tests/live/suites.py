"""The suites of RFC 7208 and RFC 6376, from the source packages of pyspf and dkimpy.

Wheels leave them out, so the source packages are fetched with pip into ``.cache/suites``,
which git ignores: ``python -m tests.live.suites`` does it beforehand (``.ci/run``), a test
does it where that was not done.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

__all__ = ["DKIMPY", "PYSPF", "fetched", "unpacked"]

PYSPF = "pyspf-2.0.14"
DKIMPY = "dkimpy-1.1.8"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "suites"


def _download(packages: Sequence[str]) -> str:
    """Fetch source packages; return what went wrong, or ""."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = [each.replace("-", "==") for each in packages]
    options = ["--quiet", "--no-binary", ":all:", "--no-deps", "--timeout", "10", "--retries", "0"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(CACHE), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]


@cache
def fetched(package: str) -> str:
    """Return why the suite of ``package`` cannot be had, or ""."""
    if (CACHE / package).is_dir():
        return ""
    archive = CACHE / f"{package}.tar.gz"
    if not archive.is_file():
        trouble = _download([package])
        if trouble:
            return f"{package} cannot be downloaded: {trouble}"
    with tarfile.open(archive) as tar:
        tar.extractall(CACHE, filter="data")
    return ""


def unpacked(package: str) -> Path:
    """Return the directory of a package that was :func:`fetched`."""
    return CACHE / package


if __name__ == "__main__":
    troubles = [trouble for each in (PYSPF, DKIMPY) if (trouble := fetched(each))]
    print("\n".join(troubles) or f"The suites are in {CACHE}.")
    sys.exit(bool(troubles))
