"""The pure modules, read from the import contract in setup.cfg: one list, two uses.

``python -m tests.pure`` prints their files, for coverage's gate.
"""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent


def pure_files() -> list[str]:
    """Return the pure modules' files, relative to the root."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    names = parser["importlinter:contract:pure"]["source_modules"].split()
    return [name.replace(".", "/") + ".py" for name in names]


if __name__ == "__main__":
    print(",".join(pure_files()))
