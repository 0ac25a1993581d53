"""What a judged message carries when it is delivered (pure).

Fields that we write stand on top: Authentication-Results (RFC 8601), X-Spam-Status and
X-Spam-Flag as SpamAssassin has them, which every mail program's filters know, and
X-Scan-Failed where a check could not do its work and the ini says to deliver all the same.
Fields of ours that came with the message are taken out, or a sender could write his own
acquittal.  Mail of our own clients to others bears none that speak of spam: a customer's
program would sort it by them.  :class:`mailsecure.gateway.judging` calls :func:`dress` with the
verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config.scanning import Scan, ScanAction
from .authresults import authentication_results, is_ours
from .editing import fields, prefixed_subject, without
from .inspection import Judgement
from .values import AddField, Edit, RemoveField, Special
from .verdict import Verdict

__all__ = ["dress"]

_OURS = ("X-Spam-Flag", "X-Spam-Status", "X-Scan-Failed")
_MARKED = (ScanAction.TAG, ScanAction.QUARANTINE)
_WIDTH = 78


def dress(
    judgement: Judgement, header: bytes, settings: Scan, authserv_id: str, inward: bool = True
) -> tuple[bytes, bytes]:
    """Return (the fields to put in front, the header section as it goes on).

    ``header`` is the whole header section that the client sent.  Not ``inward``: the message
    leaves the house, so what we think of it as spam is not told.  RemoteFault: an engine asked
    for a field that cannot be.
    """
    verdict, edits = judgement.verdict, judgement.edits
    marked = inward and verdict.strictest in _MARKED
    added = [edit for edit in edits if isinstance(edit, AddField)]
    written: list[AddField] = []
    if judgement.results:
        text = authentication_results(authserv_id, judgement.results)
        written.append(AddField("Authentication-Results", text))
    if settings.headers and inward:
        if marked:
            written.append(AddField("X-Spam-Flag", "YES"))
        written.append(AddField("X-Spam-Status", _status(verdict, marked, settings.tag)))
    failed = [each.name for each in verdict.symbols if each.special is Special.FAILURE]
    if failed:
        written.append(AddField("X-Scan-Failed", _folded(failed)))
    kept = without(header, [*_ours(authserv_id), *_removals(edits)])
    if marked and settings.subject_prefix:
        kept = prefixed_subject(kept, settings.subject_prefix)
    return fields([*written, *added]), kept


def _ours(authserv_id: str) -> list[RemoveField]:
    results = RemoveField(
        "Authentication-Results", value_matches=lambda value: is_ours(value, authserv_id)
    )
    return [results, *(RemoveField(name) for name in _OURS)]


def _removals(edits: Sequence[Edit]) -> list[RemoveField]:
    return [edit for edit in edits if isinstance(edit, RemoveField)]


def _status(verdict: Verdict, marked: bool, required: float) -> str:
    tests = [f"{symbol.name}={symbol.score:g}" for symbol in verdict.symbols]
    head = f"{'Yes' if marked else 'No'}, score={verdict.score:g} required={required:g}"
    return f"{head}\r\n\ttests={_folded(tests or ['none'], ',')}"


def _folded(words: Sequence[str], between: str = " ") -> str:
    """Join ``words``, with a fold wherever a line grows long (RFC 5322 §2.2.3)."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > _WIDTH:
            lines[-1] += between.rstrip()
            lines.append("")
        lines[-1] += (between if lines[-1] else "") + word
    return "\r\n\t".join(lines)
