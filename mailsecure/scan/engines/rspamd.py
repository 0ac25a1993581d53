"""Rspamd: judges a message over HTTP; its action, score, symbols and header changes count.

The client is our own and small, because Twisted's Agent takes more time for a question than
all the rest of the way does, and Rspamd's workers close each connection anyway.  The octets
are in :mod:`.checkv2`.

One symbol, RSPAMD, carries both its score (times ``weight``) and the action it asks for
itself, so nothing is counted twice: the score counts against our thresholds, together with
that of the other checks, and the action is done at least.  Its action ``greylist`` is no
more than a range of scores: it is the module of that name that greylists, and then the
action is ``soft reject``.  So ``greylist`` asks for nothing, as in Rspamd's own milter.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ...config.scanning import Rspamd, ScanAction
from ..api import Site
from ..values import Content, Edit, Facts, Finding, Symbol
from .asking import ask
from .checkv2 import MAX_ANSWER, Opinion, opinion, pong, question
from .fields import MAX_FIELDS
from .heads import Answer
from .wire import BodyReader, Wire
from .wires import Place, Wires

__all__ = ["RspamdEngine"]

PORT = 11333
#: Symbols named in a reason.
NAMED = 8
_SUBJECT = "rewrite subject"
_ACTIONS = {
    "reject": ScanAction.REJECT,
    "quarantine": ScanAction.QUARANTINE,
    "add header": ScanAction.TAG,
    _SUBJECT: ScanAction.TAG,
    "soft reject": ScanAction.TEMPFAIL,
    "discard": ScanAction.DISCARD,
}
_REPLIED = frozenset({ScanAction.REJECT, ScanAction.TEMPFAIL})


class RspamdEngine:
    """Rspamd, as ``[rspamd]`` says.  Raises ValueError where the password cannot be read."""

    def __init__(self, site: Site, settings: Rspamd) -> None:
        self._world = site.world
        self._settings = settings
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"{settings.url}: rspamd speaks http or https")
        self._host = parts.netloc
        self._base = parts.path.rstrip("/")
        self._password = _password(settings.password)
        self._hostname = site.config.node.hostname
        self._wires = Wires(
            site.world, Place.of_url(settings.url, PORT), min(settings.connections, 100)
        )

    def start(self) -> None:
        """Begin."""
        self._wires.start()

    def close(self) -> None:
        """End."""
        self._wires.close()

    async def probe(self) -> None:
        """Ask whether Rspamd is there; raises ScannerFault or RemoteFault."""
        head = f"GET {self._base}/ping HTTP/1.1\r\nHost: {self._host}\r\n\r\n"

        async def talk(wire: Wire) -> Answer:
            return await self._ask(wire, head.encode("ascii"), None)

        pong(await self._wires.use(talk))

    async def scan(self, facts: Facts, content: Content) -> Finding:
        """Have the message judged, our Received field on top of it."""
        octets = len(content.received) + content.octets
        recipients = [recipient.mailbox for recipient in facts.recipients]
        told = self._told(facts, content, recipients)
        head = question(self._host, f"{self._base}/checkv2", octets, told, recipients)

        async def talk(wire: Wire) -> Answer:
            body = BodyReader(self._world, content.body, content.received)
            return await self._ask(wire, head, body)

        return self._finding(opinion(await self._wires.use(talk)))

    def _told(
        self, facts: Facts, content: Content, recipients: list[str]
    ) -> tuple[tuple[str, str], ...]:
        return (
            ("IP", facts.client),
            ("Helo", facts.helo),
            ("Hostname", facts.name),
            ("From", facts.reverse_path or "<>"),
            ("Deliver-To", recipients[0] if len(recipients) == 1 else ""),
            ("Queue-Id", content.name),
            ("MTA-Name", self._hostname),
            ("Password", self._password),
        )

    async def _ask(self, wire: Wire, head: bytes, body: BodyReader | None) -> Answer:
        answer = await ask(wire, head, body, "HTTP/", MAX_ANSWER)
        if answer.lasting:
            self._wires.release(wire)
        return answer

    def _finding(self, found: Opinion) -> Finding:
        settings = self._settings
        action = _ACTIONS.get(found.action) if settings.actions else None
        score = round(found.score * settings.weight, 3)
        edits: tuple[Edit, ...] = ()
        if settings.headers:
            subject = found.subject if found.action == _SUBJECT else ()
            edits = (*found.edits, *subject)[:MAX_FIELDS]
        reply = found.reply if action in _REPLIED else ""
        return Finding((Symbol("RSPAMD", score, _reason(found), action, reply=reply),), edits=edits)


def _reason(found: Opinion) -> str:
    named = [f"{name}({score:g})" for name, score in found.symbols[:NAMED]]
    more = len(found.symbols) - len(named)
    return " ".join((f"{found.action}:", *named, *([f"and {more} more"] if more else ())))


def _password(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
