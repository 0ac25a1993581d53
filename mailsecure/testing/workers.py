"""Jobs done at once, in this process: a fake of :class:`mailsecure.scan.api.Workers`.

``InlineWorkers().run("jobs.mail:take_apart", {...}, body)`` imports the module below
:mod:`mailsecure.scan` and calls the function, as a real worker would.  ``fault`` is raised
instead, if it is set; ``done`` lists the jobs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..config.scanning import Scan
from ..spool.values import Body

__all__ = ["InlineWorkers", "OctetsBody"]


class OctetsBody:
    """A body in memory, for tests and for ``mailsecure scan``."""

    in_memory = True

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.octets = len(octets)

    def pieces(self, size: int = 65536) -> Any:
        """Yield the octets."""
        for at in range(0, len(self._octets), size):
            yield self._octets[at : at + size]


class InlineWorkers:
    """See the module's text."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.done: list[str] = []

    async def start(self) -> None:
        """There is nothing to start."""

    async def stop(self) -> None:
        """There is nothing to end."""

    def reconfigure(self, settings: Scan) -> None:
        """Nothing here goes by settings."""

    def report(self) -> dict[str, Any]:
        """Return the figures of a pool that does nothing now."""
        return {"processes": 0, "wanted": 0, "busy": 0, "waiting": 0, "done": len(self.done)}

    async def run(
        self, job: str, arguments: Mapping[str, Any], body: Body | None = None
    ) -> dict[str, Any]:
        """Do the job now; arguments and result go through JSON, as they would."""
        self.done.append(job)
        if self.fault is not None:
            raise self.fault
        module, _, name = job.partition(":")
        function = getattr(import_module(f"mailsecure.scan.{module}"), name)
        octets = b"" if body is None else b"".join(body.pieces())
        result: dict[str, Any] = json.loads(
            json.dumps(function(json.loads(json.dumps(arguments)), octets))
        )
        return result
