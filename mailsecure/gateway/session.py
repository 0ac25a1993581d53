"""One session's policy: the :class:`~mailsecure.smtp.serving.Receiver` of the gateway.

Each method is a stage of RFC 5321's conversation, and the only place that decides it.
What a session needs of the node (rules, limits, scanner, spool, delivery) it finds in its
:class:`~.desk.Desk`, one for all sessions of one configuration; the session keeps only what
is its own.  What it decides, its :class:`~.account.Account` counts and tells.

The message's way: ``mail`` and ``rcpt`` gather the envelope and ``content`` the body in a
:class:`~.transaction.Transaction`, ``message`` has it judged (:mod:`.judging`) and hands it
to the spool, and only when the spool says that it is durable comes the 250 (design
section 5).  Then delivery is told at once.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ..entrance import Screening
from ..errors import LocalFault
from ..scan.inspection import Inspection, Judgement
from ..scan.scanner import Scanner
from ..scan.values import Facts, Symbol
from ..smtp.envelope import Recipient
from ..smtp.events import ContentEnd, Data, Helo, Mail, Rcpt, TlsFacts
from ..smtp.replies import Reply
from ..smtp.serving import EARLY_TALKER, GOING_DOWN, Answer
from ..spool.api import NewMessage
from ..spool.ids import id_name
from .account import Account
from .desk import Client, Desk
from .judging import Arriving, Judge
from .transaction import SPOOL_BROKEN, SPOOL_FULL, Transaction, not_kept

__all__ = ["GatewaySession"]

MAIL_OK = Reply(250, "2.1.0", "Ok")
RCPT_OK = Reply(250, "2.1.5", "Ok")
HELO_OK = Reply(250, "", "Ok")
GO_AHEAD = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
TOO_MANY_MESSAGES = Reply(450, "4.7.1", "Too many messages, try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
TOO_FAST_RECIPIENTS = Reply(450, "4.7.1", "Too many recipients a minute, try again later")
SESSION_USED_UP = Reply(421, "4.7.0", "Too many messages in one session")
CLIENT_GONE = Reply(451, "4.4.2", "You had left before the message was judged")


class GatewaySession:
    """What one client may do.  See :class:`~mailsecure.smtp.serving.Receiver`."""

    __slots__ = (
        "_account",
        "_counted",
        "_desk",
        "_inspection",
        "_logged",
        "_over",
        "_overshoot",
        "_pipelined",
        "_screened",
        "_spared",
        "_transaction",
        "_turned_away",
    )

    def __init__(self, desk: Desk, client: Client, screening: Screening | None = None) -> None:
        """``screening`` says that the client was let in already, and what it counts as."""
        self._desk = desk
        self._account = Account(desk, client)
        self._screened = screening is not None
        self._counted = screening is not None and bool(screening.key)
        self._turned_away = False
        self._logged = False
        self._inspection: Inspection | None = None
        self._over = False
        self._spared: Reply | None = None
        self._overshoot = 0
        self._pipelined = False
        self._transaction: Transaction | None = None

    # -- the stages

    def greeting(self) -> Reply:
        """Refuse what is too much at once, else greet."""
        desk, client = self._desk, self._account.client
        if self._screened:
            refusal = desk.no_room()
        else:
            refusal = desk.turn_away(client.address, client.key, client.trusted)
            self._counted = refusal is None and not client.trusted
        if refusal is not None:
            return self.turned_away(*refusal)
        desk.counters.sessions_opened += 1
        if desk.scanner is not None and not client.relay_only:
            self._inspect(desk.scanner)
        return desk.greeting

    def _inspect(self, scanner: Scanner) -> None:
        account = self._account
        client = account.client
        facts = Facts(account.name, client.address, client.port, client.trusted)
        self._inspection = scanner.open(facts)
        if self._inspection is not None:
            account.facts = facts
            self._inspection.connected()

    def turned_away(self, reply: Reply, why: str) -> Reply:
        """Refuse the session itself; that is its one line in the log."""
        counters = self._desk.counters
        counters.sessions_opened += 1
        if reply is not GOING_DOWN:
            counters.sessions_refused += 1
        self._turned_away = self._logged = True
        self._account.turned_away(reply, why)
        return reply

    def helo(self, event: Helo) -> Answer:
        """Note the name; what it is worth is for the checks."""
        self.reset()
        account = self._account
        account.helo, account.extended = event.name, event.extended
        if self._inspection is not None:
            self._inspection.helo(event.name, event.extended)
        return HELO_OK

    def mail(self, event: Mail) -> Answer:
        """Begin a transaction if there is room for its message."""
        desk, client = self._desk, self._account.client
        self._pipelined = True
        if desk.draining:
            return self._refuse("MAIL", GOING_DOWN, sender=event.reverse_path)
        if self._account.messages >= desk.smtp.max_transactions:
            return self._refuse("MAIL", SESSION_USED_UP, sender=event.reverse_path)
        health = desk.spool.health()
        if not health.well:
            reply = SPOOL_FULL if health.full else SPOOL_BROKEN
            return self._refuse("MAIL", reply, health.why, sender=event.reverse_path)
        if not client.trusted and not desk.limits.message(client.key, desk.clock.seconds()):
            return self._refuse("MAIL", TOO_MANY_MESSAGES, sender=event.reverse_path)
        self._pipelined = False
        self._transaction = Transaction(desk, event)
        if self._inspection is not None:
            self._inspection.mail(event.reverse_path, event.domain, event.size, event.smtputf8)
        return MAIL_OK

    def rcpt(self, event: Rcpt) -> Answer:
        """Take the recipient, refuse it, or ask the checks and the next hop first."""
        desk, client = self._desk, self._account.client
        recipient = event.recipient
        if len(self._taken) >= desk.smtp.max_recipients:
            return self._refuse_recipient(TOO_MANY_RECIPIENTS, recipient)
        if not client.trusted and not desk.limits.recipient(client.key, desk.clock.seconds()):
            return self._refuse_recipient(TOO_FAST_RECIPIENTS, recipient)
        decided = desk.rules.decide(recipient, event.local, client.trusted, client.own_address)
        if isinstance(decided, Reply):
            return self._refuse_recipient(decided, recipient)
        inspection = self._inspection
        # The postmaster can always be written to (RFC 5321 §4.5.1).
        if inspection is None or event.local.lower() == "postmaster":
            return self._offer(decided)
        return Deferred.fromCoroutine(self._inspected(inspection, decided))

    @property
    def _taken(self) -> dict[str, Recipient]:
        """The recipients so far, by mailbox."""
        return {} if self._transaction is None else self._transaction.recipients

    async def _inspected(self, inspection: Inspection, recipient: Recipient) -> Reply:
        """Have the checks their say."""
        refused = await inspection.rcpt(recipient, tuple(self._taken.values()))
        if refused is not None:
            reply, symbols = refused
            self._desk.counters.recipients_refused_by_checks += 1
            if reply.transient:
                self._spared = reply
            return self._refuse_recipient(reply, recipient, symbols)
        answer = self._offer(recipient)
        return answer if isinstance(answer, Reply) else await answer

    def _offer(self, recipient: Recipient) -> Answer:
        """Take the recipient, or ask the next hop first."""
        desk = self._desk
        if desk.verifier is not None and desk.needs_verifying(recipient):
            refusal = desk.verifier.refusal(recipient)
            if isinstance(refusal, Deferred):
                return refusal.addCallback(self._verified, recipient)
            return self._verified(refusal, recipient)
        return self._take_recipient(recipient)

    def _verified(self, refusal: Reply | None, recipient: Recipient) -> Reply:
        if refusal is not None:
            return self._refuse_recipient(refusal, recipient)
        return self._take_recipient(recipient)

    def _take_recipient(self, recipient: Recipient) -> Reply:
        # The same mailbox twice gets one copy.
        self._taken.setdefault(recipient.mailbox, recipient)
        self._desk.counters.recipients_accepted += 1
        return RCPT_OK

    def data(self, event: Data) -> Answer:
        """Let the content come."""
        if self._transaction is not None:
            self._transaction.begin()
        return GO_AHEAD

    def content(self, data: bytes) -> None:
        """Keep a piece; what goes wrong is answered at the end."""
        if self._transaction is not None:
            self._transaction.write(data)

    def message(self, event: ContentEnd) -> Answer:
        """Have the message judged and make it durable, or say why not."""
        transaction = self._transaction
        if transaction is None:
            return self._refuse_message(event.fault or SPOOL_BROKEN, "")
        transaction.write(event.data)
        arriving = event.fault or transaction.end(self._account)
        if isinstance(arriving, Reply):
            return self._refuse_message(arriving, self._sender)
        return Deferred.fromCoroutine(self._decide(arriving))

    async def _decide(self, arriving: Arriving) -> Reply:
        """Judge the message where that is wanted, and do what follows."""
        inspection, judge = self._inspection, self._desk.judge
        sender = arriving.envelope.reverse_path
        judgement: Judgement | None = None
        message: NewMessage | None = None
        try:
            if judge is None:
                message = arriving.unjudged()
            elif inspection is None:
                client = self._account.client
                facts = Facts(self._account.name, client.address, trusted=client.trusted)
                message = await judge.relayed(facts, arriving)
            else:
                judgement = await judge.judge(inspection, arriving)
                reply = CLIENT_GONE if self._over else judge.reply(arriving, judgement)
                if reply is not None:
                    return self._dispose(arriving, judge, judgement, reply)
                message = await judge.kept(inspection, arriving, judgement)
        except LocalFault as fault:
            return self._refuse_message(not_kept(self._desk, fault), sender, str(fault))
        finally:
            # Whatever happened: nothing of this transaction may get into the next one.
            self.reset()
            if message is None:
                arriving.body.discard()
        try:
            await self._desk.spool.accept(message)
        except LocalFault as fault:
            return self._refuse_message(not_kept(self._desk, fault), sender, str(fault))
        finally:
            arriving.release()
        return self._durable(message, arriving, judgement)

    def _dispose(
        self, arriving: Arriving, judge: Judge, judgement: Judgement, reply: Reply
    ) -> Reply:
        """Answer for a message of which nothing is kept."""
        if reply.positive:
            self._account.discarded(arriving, judgement, reply)
            return reply
        self._desk.counters.messages_refused += 1
        self._account.refused += 1
        self._logged = True
        if reply.transient:
            self._spared = reply
        self._account.refused_message(arriving, judgement, reply, judge.reasons(judgement))
        return reply

    def _durable(
        self, message: NewMessage, arriving: Arriving, judgement: Judgement | None
    ) -> Reply:
        """The spool has it: from here on it is ours to deliver."""
        desk, client = self._desk, self._account.client
        counters = desk.counters
        counters.messages_accepted += 1
        counters.octets_accepted += message.body.octets
        held = message.quarantine
        if held is None and not client.trusted:
            desk.limits.sent_mail(client.key, desk.clock.seconds())
        reply = Reply(250, "2.0.0", f"Ok: queued as {id_name(message.id)}")
        self._account.accepted(message, arriving, judgement, reply)
        if held is None or len(held.recipients) < len(message.envelope.recipients):
            desk.take(message)
        return reply

    def reset(self) -> None:
        """Forget the transaction."""
        self._forget()
        if self._inspection is not None:
            self._inspection.reset()

    def _forget(self) -> None:
        if self._transaction is not None:
            self._transaction.drop()
            self._transaction = None

    def tls_started(self, facts: TlsFacts) -> None:
        """All that was said in the clear is forgotten (RFC 3207 §4.2)."""
        self.reset()
        self._account.tls = facts
        self._account.helo = ""
        if self._inspection is not None:
            self._inspection.started_tls(facts.version)
        self._desk.counters.sessions_tls += 1

    # -- refusals and the end

    @property
    def _sender(self) -> str:
        return "" if self._transaction is None else self._transaction.mail.reverse_path

    def _refuse_recipient(
        self, reply: Reply, recipient: Recipient, symbols: tuple[Symbol, ...] = ()
    ) -> Reply:
        self._desk.counters.recipients_refused += 1
        self._account.refused += 1
        why = ", ".join(symbol.name for symbol in symbols)
        return self._refuse("RCPT", reply, why, self._sender, recipient.mailbox, symbols)

    def _refuse_message(self, reply: Reply, sender: str, reason: str = "") -> Reply:
        self._desk.counters.messages_refused += 1
        self._account.refused += 1
        self._refuse("DATA", reply, reason, sender)
        self.reset()
        return reply

    def _refuse(
        self,
        stage: str,
        reply: Reply,
        reason: str = "",
        sender: str = "",
        recipient: str = "",
        symbols: tuple[Symbol, ...] = (),
    ) -> Reply:
        self._logged = True
        self._account.refusal(stage, reply, reason, sender, recipient, symbols)
        return reply

    def complained(self, reply: Reply) -> float | None:
        """Count the error; slow down and at last end who makes too many.

        Our own troubles (4.3.x) are not the client's errors.
        """
        desk, account = self._desk, self._account
        if not self._logged:
            desk.counters.protocol_errors += 1
            if reply is EARLY_TALKER:
                desk.counters.early_talkers += 1
            account.refusal("COMMAND", reply)
        self._logged = False
        if reply.enhanced.startswith("4.3.") or self._may_overshoot(reply):
            return 0.0
        if reply is self._spared:
            # Who is asked to come again made no mistake.
            return 0.0
        if reply.code == 503 and self._pipelined:
            # RCPT and DATA that were sent before our 4xx to MAIL was read.
            return 0.0
        account.errors += 1
        most = desk.smtp.max_errors
        if account.errors >= most:
            return None
        return desk.smtp.tarpit if account.errors * 2 > most else 0.0

    def _may_overshoot(self, reply: Reply) -> bool:
        """Spare a list server that names all its recipients before it reads our 452s."""
        if reply is not TOO_MANY_RECIPIENTS:
            return False
        self._overshoot += 1
        return self._overshoot <= self._desk.smtp.max_recipients

    def closed(self, why: str) -> None:
        """Give back what the session held; write its one line."""
        desk, account = self._desk, self._account
        self._over = True
        # A message may be with the checks still: its facts stay.
        self._forget()
        if self._inspection is not None:
            self._inspection.close()
        if self._counted:
            desk.limits.close(account.client.key)
        if why == "timeout":
            desk.counters.timeouts += 1
        if not self._turned_away:
            account.closed(why)
