"""A mail filter that speaks the milter protocol: it hears of the session, and decides.

The whole conversation takes place when the message is there: connection, HELO, reverse-path,
recipients, header section, body.  A refusal of one recipient is for that recipient; any
other decision is for the message.  Each message has a connection of its own, as a filter
keeps what it knows of a client by connection.  Our Received field is not shown, as mail
servers have it.  The octets are in :mod:`.packets`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...config.scanning import Milter, ScanAction
from ...errors import RemoteFault
from ...smtp.envelope import Recipient
from ...world import World
from ..api import ScannerFault, Site, Unscannable
from ..values import Content, Edit, Facts, Finding, Symbol
from .fields import MAX_FIELDS, line
from .packets import (
    CHUNK,
    Decision,
    Packet,
    Packets,
    Steps,
    Word,
    connection,
    decision,
    edits,
    macros,
    negotiated,
    negotiation,
    packet,
    strings,
)
from .section import HeaderSection
from .wire import BodyReader, Gone, Wire
from .wires import Place, Wires

__all__ = ["MilterEngine"]

_ACTIONS = {
    Word.REJECT: ("MILTER_REJECT", ScanAction.REJECT),
    Word.TEMPFAIL: ("MILTER_TEMPFAIL", ScanAction.TEMPFAIL),
    Word.DISCARD: ("MILTER_DISCARD", ScanAction.DISCARD),
}
REFUSES = (
    "hung up when told that it may change fields and quarantine: "
    "does it want the body, the sender or the recipients?"
)
#: What a filter that negotiates nothing hears and answers.
_ALL = Steps(0)


class MilterEngine:
    """A filter, as ``[milter]`` says."""

    def __init__(self, site: Site, settings: Milter) -> None:
        self._world = site.world
        self._hostname = site.config.node.hostname
        self._wires = Wires(site.world, Place.of_client(settings.address))

    def start(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: no connection outlives its message."""

    async def probe(self) -> None:
        """Begin a conversation and leave; raises ScannerFault or RemoteFault."""

        async def talk(wire: Wire) -> None:
            await _Conversation(wire).begin()
            await wire.send(packet("Q"))

        await self._wires.use(talk)

    async def scan(self, facts: Facts, content: Content) -> Finding:
        """Have the message judged."""

        async def talk(wire: Wire) -> Finding:
            return await _hear(wire, self._world, self._hostname, facts, content)

        return await self._wires.use(talk)


@dataclass(slots=True)
class _Conversation:
    """One connection: what is said, and what is answered."""

    wire: Wire
    steps: Steps = _ALL
    packets: Packets = field(default_factory=Packets)
    _held: list[bytes] = field(default_factory=list)
    _octets: int = 0
    _heard: deque[Packet] = field(default_factory=deque)

    async def begin(self) -> None:
        """Negotiate."""
        await self.wire.send(negotiation())
        try:
            answer = await self.next()
        except Gone:
            # What libmilter does where it is not offered what the filter must have.
            raise ScannerFault(REFUSES) from None
        self.steps = negotiated(answer).steps

    async def next(self) -> Packet:
        """Return the next packet of the filter's that is no mere sign of life."""
        while True:
            while not self._heard:
                data = await self.wire.receive()
                if not data:
                    raise Gone("the filter closed the connection")
                self._heard.extend(self.packets.feed(data))
            heard = self._heard.popleft()
            if heard.command != "p":
                return heard

    async def tell(self, octets: bytes, unheard: Steps, quiet: Steps) -> Decision:
        """Tell the filter something, and return what it decides.

        Where it negotiated ``unheard`` it is not told, where ``quiet`` it does not answer,
        and the octets wait for the next that are.
        """
        if self.steps & unheard:
            return Decision(Word.GO_ON)
        self._held.append(octets)
        self._octets += len(octets)
        if self.steps & quiet:
            if self._octets > CHUNK:
                await self.flush()
            return Decision(Word.GO_ON)
        await self.flush()
        heard = await self.next()
        decided = decision(heard)
        if decided is None or (decided.what is Word.SKIP and unheard is not Steps.NO_BODY):
            raise RemoteFault(f"no decision: {heard.command!r}")
        if decided.what is Word.FAILED:
            raise ScannerFault("the filter says that it cannot do its work")
        return decided

    async def flush(self, last: bytes = b"") -> None:
        """Send what was held back, and ``last``."""
        held = b"".join((*self._held, last))
        self._held.clear()
        self._octets = 0
        await self.wire.send(held)


async def _hear(wire: Wire, world: World, hostname: str, facts: Facts, content: Content) -> Finding:
    """Have one conversation; returns what it comes to."""
    talk = _Conversation(wire)
    await talk.begin()
    symbols: list[Symbol] = []
    for stage in (_session, _transaction):
        decided = await stage(talk, hostname, facts, content, symbols)
        if decided.what is not Word.GO_ON:
            return Finding((*symbols, *_decided(decided)))
    body = BodyReader(world, content.body)
    header = await _header_section(body)
    decided = await _fields(talk, header)
    if decided.what is Word.GO_ON:
        decided = await _body(talk, body, header.rest)
    if decided.what not in (Word.GO_ON, Word.SKIP):
        return Finding((*symbols, *_decided(decided)))
    found = await _end(talk, content, Counter(name.lower() for name, _ in header.fields))
    return Finding((*symbols, *found.symbols), edits=found.edits)


async def _session(
    talk: _Conversation, hostname: str, facts: Facts, content: Content, symbols: list[Symbol]
) -> Decision:
    """Tell of the client."""
    name = facts.name or f"[{facts.client}]"
    told = (
        ("j", hostname),
        ("v", "mailsecure"),
        ("_", f"{name} [{facts.client}]"),
        ("daemon_name", hostname),
        ("client_addr", facts.client),
        ("client_name", facts.name or "unknown"),
        ("client_port", str(facts.port)),
        ("tls_version", facts.tls),
    )
    octets = macros("C", told) + connection(name, facts.client, facts.port)
    decided = await talk.tell(octets, Steps.NO_CONNECT, Steps.QUIET_CONNECT)
    if decided.what is Word.GO_ON:
        octets = packet("H", strings(facts.helo))
        decided = await talk.tell(octets, Steps.NO_HELO, Steps.QUIET_HELO)
    return decided


async def _transaction(
    talk: _Conversation, hostname: str, facts: Facts, content: Content, symbols: list[Symbol]
) -> Decision:
    """Tell of the envelope; a refusal that is of one recipient only goes into ``symbols``."""
    told = (("i", content.name), ("mail_addr", facts.reverse_path))
    octets = macros("M", told) + packet("M", strings(f"<{facts.reverse_path}>"))
    decided = await talk.tell(octets, Steps.NO_MAIL, Steps.QUIET_MAIL)
    if decided.what is not Word.GO_ON:
        return decided
    for recipient in facts.recipients:
        told_of = macros("R", (("i", content.name), ("rcpt_addr", recipient.mailbox)))
        octets = told_of + packet("R", strings(f"<{recipient.mailbox}>"))
        decided = await talk.tell(octets, Steps.NO_RCPT, Steps.QUIET_RCPT)
        if decided.what in (Word.ACCEPT, Word.DISCARD):
            return decided
        symbols.extend(_decided(decided, recipient))
    if facts.recipients and len(symbols) == len(facts.recipients):
        return Decision(Word.ACCEPT)
    octets = macros("T", (("i", content.name),)) + packet("T")
    return await talk.tell(octets, Steps.NO_DATA, Steps.QUIET_DATA)


async def _header_section(body: BodyReader) -> HeaderSection:
    header = HeaderSection()
    try:
        while batch := await body.read():
            if header.feed(batch):
                return header
        header.end()
    except RemoteFault as fault:
        raise Unscannable(str(fault)) from None
    return header


async def _fields(talk: _Conversation, header: HeaderSection) -> Decision:
    """Tell of the header section."""
    intact = bool(talk.steps & Steps.LEADING_SPACE)
    for name, value in header.fields:
        shown = value if intact else value.removeprefix(" ")
        told = strings(name, shown)
        if len(told) > CHUNK:
            # libmilter would hang up, as if we made no sense.
            raise Unscannable(f"a field of more than {CHUNK} octets in the header section")
        octets = packet("L", told)
        decided = await talk.tell(octets, Steps.NO_HEADERS, Steps.QUIET_HEADER)
        if decided.what is not Word.GO_ON:
            return decided
    return await talk.tell(packet("N"), Steps.NO_EOH, Steps.QUIET_EOH)


async def _body(talk: _Conversation, body: BodyReader, rest: bytes) -> Decision:
    """Show the body."""
    batch = rest or await body.read()
    while batch:
        for at in range(0, len(batch), CHUNK):
            octets = packet("B", batch[at : at + CHUNK])
            decided = await talk.tell(octets, Steps.NO_BODY, Steps.QUIET_BODY)
            if decided.what is not Word.GO_ON or talk.steps & Steps.NO_BODY:
                return decided
        batch = await body.read()
    return Decision(Word.GO_ON)


async def _end(talk: _Conversation, content: Content, count: Mapping[str, int]) -> Finding:
    """Say that this was all; returns what the filter wants changed, and its decision."""
    octets = macros("E", (("i", content.name),)) + packet("E")
    await talk.flush(octets)
    symbols: list[Symbol] = []
    changes: list[Edit] = []
    while True:
        heard = await talk.next()
        decided = decision(heard)
        if decided is not None:
            break
        if heard.command == "q":
            why = line(heard.data.decode("utf-8", "replace"))
            symbols.append(Symbol("MILTER_QUARANTINE", 0.0, why, ScanAction.QUARANTINE))
            continue
        wanted = edits(heard, dict(count))
        if wanted is None:
            raise RemoteFault(f"wants what was not offered: {heard.command!r}")
        if len(changes) < MAX_FIELDS:
            changes.extend(wanted)
    if decided.what is Word.FAILED:
        raise ScannerFault("the filter says that it cannot do its work")
    await talk.wire.send(packet("Q"))
    if decided.what in _ACTIONS:
        return Finding((*symbols, *_decided(decided)))
    return Finding(tuple(symbols), edits=tuple(changes))


def _decided(decided: Decision, recipient: Recipient | None = None) -> tuple[Symbol, ...]:
    """Return the symbol of a decision, if it is one against the message."""
    if decided.what not in _ACTIONS:
        return ()
    name, action = _ACTIONS[decided.what]
    whom = None if recipient is None else frozenset({recipient.mailbox})
    reason = decided.reply or decided.what.value
    return (Symbol(name, 0.0, reason, action, reply=decided.reply, recipients=whom),)
