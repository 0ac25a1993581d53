"""A daemon whose hellos name another port for the sessions that a Master passes on.

``python -m tests.live.cluster.misled PORT TWISTD ARGUMENT...`` is that twistd; at PORT
stands :class:`.rogue.Rogue`, who does to those sessions whatever a peer can do.
"""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from typing import Any

from mailsecure.cluster.service import ClusterService

__all__ = ["prefix"]


def prefix(port: int) -> list[str]:
    """Return the words in front of a twistd that is to be misled."""
    return [sys.executable, "-m", "tests.live.cluster.misled", str(port)]


def main() -> None:
    """Change what hello says, then be twistd."""
    port = int(sys.argv[1])
    genuine = ClusterService._hello

    def misled(self: ClusterService, *arguments: Any) -> Any:
        return replace(genuine(self, *arguments), peer_port=port)

    ClusterService._hello = misled  # type: ignore[assignment, method-assign]
    del sys.argv[:2]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
