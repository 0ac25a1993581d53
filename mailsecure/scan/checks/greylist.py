"""The check ``greylist``: strangers are asked to come again, and real mail servers do.

At RCPT the triple of network, reverse-path and recipient is looked up (:mod:`.greylisting`).
Who has to wait gets GREYLISTED, a 450 that says for how long.  Large senders come again from
another of their networks: where SPF (:mod:`.authentication`) lets the client speak for the
domain of the reverse-path, that domain stands in the triple for its network.  Never made to wait
are:

* clients in ``[relay] networks``, and whom the ini lets pass;
* clients that lists of the good know: ``dnsbl`` left a sum of -1 or less (:mod:`.dnsbl`);
* mail to any postmaster: who has trouble with us must be able to say so (RFC 5321 §4.5.1).

**The null reverse-path** is asked about at DATA, not at RCPT.  Servers that verify senders by a
callout say ``MAIL FROM:<>`` and RCPT, and QUIT; put off, they put off our users' mail, and a
callout comes from wherever that mail is going.  They never come to DATA.  Bounces do, and wait
there like anybody's mail: strangers that write without a reverse-path would have a way around
all of this otherwise.

:class:`Memory` is what outlives a reload: the table, its file, its gossip.  The file is written
every few seconds in a thread; a disk that does not take it is said, and mail goes on.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from ...background import Periodic, background
from ...config.scanning import Greylist as Settings
from ...config.scanning import ScanAction
from ...errors import LocalFault
from ...smtp.envelope import Recipient
from ...world import World
from ..api import Check, ICheckMaker, Site
from ..gossip import Gossip
from ..values import NOTHING, Facts, Finding, Stage, Symbol
from . import dnsbl
from .greyfile import FileBroken, GreyFile
from .greylisting import Greylist, Ruling, Terms
from .matching import is_listed_mailbox, is_listed_name, is_within, network_of, read_address
from .tables import Known
from .triples import triple_of

__all__ = ["GreylistCheck", "GreylistMaker", "Memory"]

_log = Logger(namespace="scan")

SUBJECT = "greylist"
#: Seconds between two writings, rows of one, writings between two tidyings; and so many rows at
#: most, or a flood of strangers would fill the disk meanwhile.
WRITE_EVERY = 5.0
ROWS = 2000
TIDY_EVERY = 720
TIDY_ROWS = 200_000
#: Seconds between two lines about a disk that does not take what is written.
_QUIET = 300.0
#: The sum of lists from which on (downwards) a client is known to be good.
WELL_KNOWN = -1.0


class Memory:
    """What is remembered, where it is kept, and with whom it is shared."""

    def __init__(self, world: World, directory: Path, terms: Terms, telling: bool) -> None:
        self._world = world
        self.table = Greylist(terms, telling)
        self._file = GreyFile(directory)
        self._gossip = Gossip(world.clock, SUBJECT, self.table, world.wall)
        self._turns = Periodic(world.clock, WRITE_EVERY, "writing the greylist", self._turn)
        self._writing: Deferred[None] | None = None
        self._since_tidy = 0
        self._rows_since_tidy = 0
        self._quiet_until = float("-inf")
        self.running = False

    async def start(self, site: Site) -> None:
        """Read the file and begin; LocalFault if there can be none."""
        await self._world.in_thread(self._open)
        self.running = True
        self._turns.start()
        if site.line is not None:
            self._gossip.start(site.line())

    async def stop(self) -> None:
        """Write what is not written; nothing is raised."""
        if not self.running:
            return
        self.running = False
        self._turns.stop()
        self._gossip.stop()
        if self._writing is not None:
            await self._writing
        while (rows := self.table.changes(ROWS)) and await self._write(rows):
            pass
        await self._world.in_thread(self._file.close)

    def _open(self) -> None:
        """In a thread, before anybody else looks at the table."""
        try:
            self.table.load(self._file.open())
        except FileBroken as fault:
            aside = self._file.set_aside()
            _log.error(
                "the greylist is begun anew: {reason}; the file is {aside} now",
                reason=str(fault),
                aside=str(aside),
            )
            self.table.load(self._file.open())

    def _turn(self) -> None:
        if self._writing is None:
            rows = self.table.changes(ROWS)
            self._since_tidy += 1
            if rows or self._is_untidy():
                self._writing = background("writing the greylist", self._write_and_tidy(rows))
                if self._writing.called:
                    self._writing = None

    async def _write_and_tidy(self, rows: list[Known]) -> None:
        try:
            written = await self._write(rows)
            while written and self.running and len(rows) == ROWS:
                rows = self.table.changes(ROWS)
                written = await self._write(rows)
                if self._rows_since_tidy >= TIDY_ROWS:
                    await self._tidy()
            if written and self._is_untidy():
                await self._tidy()
        finally:
            self._writing = None

    def _is_untidy(self) -> bool:
        return self._since_tidy >= TIDY_EVERY or self._rows_since_tidy >= TIDY_ROWS

    async def _tidy(self) -> None:
        self._since_tidy = self._rows_since_tidy = 0
        now, terms = self._world.wall(), self.table.terms
        await self._in_file(self._file.tidy, now - terms.retry_within, now - terms.remember)

    async def _write(self, rows: list[Known]) -> bool:
        if not rows or await self._in_file(self._file.write, rows):
            self._rows_since_tidy += len(rows)
            return True
        self.table.not_written(rows)
        return False

    async def _in_file(self, call: object, *arguments: object) -> bool:
        """Have the file do something; False, and said, if it cannot."""
        try:
            await self._world.in_thread(call, *arguments)  # type: ignore[arg-type]
        except FileBroken as fault:
            await self._begin_anew(fault)
        except LocalFault as fault:
            self._complain(fault)
        else:
            return True
        return False

    async def _begin_anew(self, fault: LocalFault) -> None:
        def anew() -> None:
            self._file.set_aside()
            self._file.open()

        self._complain(fault)
        try:
            await self._world.in_thread(anew)
        except LocalFault as another:
            self._complain(another)
        self.table.all_changed()

    def _complain(self, fault: LocalFault) -> None:
        now = self._world.clock.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            _log.error("the greylist is not written: {reason}", reason=str(fault))


class GreylistCheck:
    """See the module's text."""

    name = "greylist"
    stages = frozenset({Stage.RCPT, Stage.DATA})

    def __init__(self, site: Site) -> None:
        self._site = site
        self._settings = settings = site.config.greylist
        self._terms = _terms(settings)
        self._memory = Memory(site.world, site.state, self._terms, site.line is not None)

    async def start(self) -> None:
        """Read what is remembered.  See :class:`mailsecure.scan.api.Stateful`."""
        await self._memory.start(self._site)

    async def stop(self) -> None:
        """Write it."""
        await self._memory.stop()

    def inherit(self, old: Check) -> None:
        """Go on with what ``old`` remembers.  See :class:`mailsecure.scan.api.Heir`."""
        if isinstance(old, GreylistCheck):
            self._memory = old._memory
            self._memory.table.reconfigure(self._terms)

    def counts(self) -> dict[str, int]:
        """Return how much is remembered."""
        return self._memory.table.counts

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """Return GREYLISTED for who has to wait."""
        if (stage is Stage.RCPT) is not bool(facts.reverse_path):
            return NOTHING
        if facts.rehearsal or not self._memory.running or self._passes(facts):
            return NOTHING
        asked = [facts.recipient] if stage is Stage.RCPT else facts.recipients
        rulings = [
            self._ask(facts, each) for each in asked if each is not None and self._may_wait(each)
        ]
        seconds = max((each.seconds for each in rulings), default=0)
        if not seconds:
            return NOTHING
        state = next(each.state for each in rulings if each.seconds == seconds)
        symbol = Symbol(
            "GREYLISTED",
            0.0,
            f"{state.value}, {seconds} s to wait",
            ScanAction.TEMPFAIL,
            reply=f"4.7.1 Greylisted, come again in {seconds} second{'s' * (seconds != 1)}",
        )
        return Finding((symbol,))

    def _ask(self, facts: Facts, recipient: Recipient) -> Ruling:
        settings = self._settings
        network = network_of(facts.client, settings.ipv4_prefix, settings.ipv6_prefix)
        triple = triple_of(_speaker(facts) or network, facts.reverse_path, recipient.mailbox)
        return self._memory.table.ask(network, triple, self._site.world.wall())

    def _passes(self, facts: Facts) -> bool:
        settings = self._settings
        return (
            facts.trusted
            or facts.client_notes.get(dnsbl.NOTE, 0.0) <= WELL_KNOWN
            or is_within(read_address(facts.client), settings.pass_networks)
            or is_listed_name(facts.name, settings.pass_names)
            or is_listed_mailbox(facts.reverse_path, settings.pass_senders)
        )

    def _may_wait(self, recipient: Recipient) -> bool:
        local = recipient.mailbox.rpartition("@")[0]
        return local.lower() != "postmaster" and not is_listed_mailbox(
            recipient.mailbox, self._settings.pass_recipients
        )


def _speaker(facts: Facts) -> str:
    """Return the domain that SPF lets the client speak for, "" for none."""
    note = facts.notes.get("spf")
    if not facts.reverse_path or note is None or note["mailfrom"]["result"] != "pass":
        return ""
    return str(note["mailfrom"]["domain"]).lower()


def _terms(settings: Settings) -> Terms:
    return Terms(settings.delay, settings.retry_within, settings.remember, settings.trust_after)


@implementer(IPlugin, ICheckMaker)
class GreylistMaker:
    """Makes the check ``greylist``."""

    name = "greylist"

    def make(self, site: Site) -> GreylistCheck:
        """Return the check; ValueError if nobody could ever pass."""
        settings = site.config.greylist
        if settings.delay >= settings.retry_within:
            raise ValueError("delay must be less than retry_within: nobody could ever pass")
        return GreylistCheck(site)
