"""What a node holds in its quarantine, read from its state directory while it is dead.

For the crash tests: :func:`held_uniques` is to the quarantine what ``Sink.uniques`` is to
the next hop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mailsecure.config.load import parse_config
from mailsecure.spool.api import QuarantinedMessage, QuarantineFilter, QuarantineListing
from mailsecure.spool.reading import Reader
from mailsecure.spool.storage import Storage

from .load import is_intact
from .sinks import unique_of, without_trace

__all__ = ["held_messages", "held_uniques", "opened"]

_PAGE = 500


@contextmanager
def opened(state: Path) -> Iterator[Reader]:
    """Recover the spool in ``state``, as a daemon would at its start, and read from it."""
    settings = replace(parse_config("", "test.ini").spool, min_free=0)
    storage = Storage(state, settings)
    storage.open()
    reader = Reader(storage.database_path, state / "segments", settings)
    try:
        reader.open()
        yield reader
    finally:
        reader.close()
        storage.close()


def held_messages(reader: Reader) -> Iterator[QuarantinedMessage]:
    """Yield all that is held."""
    after: QuarantineListing | None = None
    while page := reader.quarantined(QuarantineFilter(), _PAGE, after, False):
        for listing in page:
            found = reader.quarantine_content(listing.id)
            if found is None:
                raise AssertionError(f"{listing.id} is listed and not there")
            yield found
        after = page[-1]


def held_uniques(state: Path) -> set[str]:
    """Return the ids (:func:`.load.unique_message`) of all that is held, each of them whole."""
    with opened(state) as reader:
        found = set()
        for held in held_messages(reader):
            content = b"".join(held.message.body.pieces())
            if not is_intact(without_trace(content)):
                raise AssertionError(f"not whole: {content[:300]!r}")
            found.add(unique_of(content))
        return found
