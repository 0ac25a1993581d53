"""The client's machine: every recipient gets its reply, however the server's octets come."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import LocalFault, RemoteFault
from mailsecure.smtp.client import ClientMachine
from mailsecure.smtp.client_events import Done, Ready, SendBody, StartTls, Unusable
from mailsecure.smtp.envelope import Recipient
from mailsecure.smtp.replies import Reply
from mailsecure.smtp.transaction import (
    Capabilities,
    Transaction,
    encoded,
    mail_command,
    parse_capabilities,
    rcpt_command,
)

LOST = Reply(451, "4.4.2", "Connection lost")
FULL = "PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN"


def two(*, probe: bool = False) -> Transaction:
    return Transaction("s@x", [Recipient("a@y", "y"), Recipient("b@y", "y")], 10, probe=probe)


def opened(extensions: str = FULL, **kind: bool) -> ClientMachine:
    machine = ClientMachine("me.test", **kind)
    machine.receive(b"220 hi\r\n")
    machine.take()
    events = machine.receive(f"250-you\r\n250-{extensions}\r\n".encode())
    assert events == [Ready()]
    return machine


def plain(**kind: bool) -> ClientMachine:
    """A machine whose server does no pipelining."""
    machine = ClientMachine("me.test", **kind)
    machine.receive(b"220 hi\r\n")
    machine.take()
    assert machine.receive(b"250 you\r\n") == [Ready()]
    return machine


class OpeningTests(SynchronousTestCase):
    def test_ehlo(self):
        machine = ClientMachine("me.test")
        self.assertEqual(machine.take(), b"")
        self.assertEqual(machine.receive(b"220-a\r\n220 b\r\n"), [])
        self.assertEqual(machine.take(), b"EHLO me.test\r\n")
        self.assertEqual(machine.stage, "at EHLO")
        self.assertEqual(machine.receive(b"250-x\r\n250 PIPELINING\r\n"), [Ready()])
        self.assertTrue(machine.ready and machine.capabilities.pipelining)

    def test_helo_after_5xx(self):
        machine = ClientMachine("me.test")
        machine.receive(b"220 x\r\n")
        machine.take()
        machine.receive(b"502 what\r\n")
        self.assertEqual(machine.take(), b"HELO me.test\r\n")
        self.assertEqual(machine.receive(b"250 x\r\n"), [Ready()])
        self.assertEqual(machine.capabilities, Capabilities())

    def test_helo_refused(self):
        machine = ClientMachine("me.test")
        machine.receive(b"220 x\r\n502 what\r\n")
        self.assertEqual(
            machine.receive(b"550 5.7.1 no\r\n"), [Unusable(Reply(550, "5.7.1", "no"))]
        )
        self.assertTrue(machine.closed)

    def test_lhlo_has_no_second_try(self):
        machine = ClientMachine("me.test", lmtp=True)
        machine.receive(b"220 x\r\n")
        self.assertEqual(machine.take(), b"LHLO me.test\r\n")
        self.assertEqual(machine.receive(b"502 no\r\n"), [Unusable(Reply(502, "", "no"))])

    def test_refusals(self):
        for octets in (b"421 later\r\n", b"554 no\r\n", b"220 x\r\n450 later\r\n"):
            (event,) = ClientMachine("me.test").receive(octets)
            self.assertIsInstance(event, Unusable)

    def test_intermediate_greeting_is_a_fault(self):
        self.assertRaises(RemoteFault, ClientMachine("me.test").receive, b"354 x\r\n")

    def test_lost(self):
        machine = ClientMachine("me.test")
        self.assertEqual(machine.lost(LOST), Unusable(LOST))
        self.assertIsNone(machine.lost(LOST))

    def test_name_of_ours_with_a_line_end(self):
        self.assertRaises(LocalFault, ClientMachine("me\r\nMAIL").receive, b"220 x\r\n")


class TlsTests(SynchronousTestCase):
    def asked(self, extensions: bytes = b"STARTTLS", **kind: bool) -> ClientMachine:
        machine = ClientMachine("me.test", **kind)
        machine.receive(b"220 x\r\n")
        machine.take()
        machine.receive(b"250-x\r\n250 " + extensions + b"\r\n")
        return machine

    def test_handshake_and_ehlo_again(self):
        machine = self.asked(want_tls=True)
        self.assertEqual(machine.take(), b"STARTTLS\r\n")
        self.assertEqual(machine.receive(b"220 go\r\n"), [StartTls()])
        self.assertTrue(machine.in_handshake)
        machine.tls_started()
        self.assertEqual(machine.take(), b"EHLO me.test\r\n")
        self.assertFalse(machine.capabilities.starttls)
        self.assertEqual(machine.receive(b"250-x\r\n250 STARTTLS\r\n"), [Ready()])

    def test_octets_after_the_220(self):
        for extra in (b"250 injected\r\n", b"2", b"250-x\r\n"):
            machine = self.asked(want_tls=True)
            self.assertRaises(RemoteFault, machine.receive, b"220 go\r\n" + extra)
        machine = self.asked(want_tls=True)
        machine.receive(b"220 go\r\n")
        self.assertRaises(RemoteFault, machine.receive, b"250 x\r\n")
        self.assertEqual(machine.lost(LOST), Unusable(LOST))

    def test_opportunistic_goes_on_without(self):
        machine = self.asked(want_tls=True)
        self.assertEqual(machine.receive(b"454 not now\r\n"), [Ready()])
        self.assertTrue(self.asked(b"DSN", want_tls=True).ready)

    def test_required(self):
        for octets, code in ((b"454 no\r\n", "454 no"), (b"500 no\r\n", "454 4.7.4")):
            (event,) = self.asked(need_tls=True).receive(octets)
            self.assertIn(code, str(event.reply))
        self.assertTrue(self.asked(b"DSN", need_tls=True).closed)

    def test_421_at_starttls(self):
        (event,) = self.asked(want_tls=True).receive(b"421 x\r\n")
        self.assertEqual(event, Unusable(Reply(421, "", "x")))


class PipelinedTests(SynchronousTestCase):
    def test_one_write_and_the_next_message(self):
        machine = opened()
        for _ in range(2):
            machine.begin(two())
            self.assertEqual(
                machine.take(),
                b"MAIL FROM:<s@x> SIZE=10\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nDATA\r\n",
            )
            self.assertTrue(machine.in_transaction)
            events = machine.receive(b"250 m\r\n250 a\r\n550 5.1.1 b\r\n354 go\r\n")
            self.assertEqual(events, [SendBody()])
            machine.body_sent()
            self.assertTrue(machine.awaits_final)
            (done,) = machine.receive(b"250 2.0.0 ok\r\n")
            self.assertEqual([reply.code for reply in done.result.replies], [250, 550])
            self.assertEqual(done.result.accepted, [0])
            self.assertTrue(done.result.dsn and machine.ready)

    def refuse(self, octets: bytes, machine: ClientMachine | None = None):
        machine = machine or opened()
        machine.begin(two())
        machine.take()
        (done,) = machine.receive(octets)
        return machine, done.result

    def test_mail_refused(self):
        machine, result = self.refuse(b"550 no\r\n503 x\r\n503 x\r\n503 x\r\n")
        self.assertEqual([reply.code for reply in result.replies], [550, 550])
        self.assertTrue(result.mail_refused and not result.elsewhere)
        machine.begin(two())
        self.assertTrue(machine.take().startswith(b"MAIL"))

    def test_mail_refused_for_now(self):
        _, result = self.refuse(b"451 later\r\n503 x\r\n503 x\r\n503 x\r\n")
        self.assertTrue(result.elsewhere)

    def test_all_refused_and_reset_before_the_next(self):
        machine, result = self.refuse(b"250 m\r\n550 a\r\n451 b\r\n554 none\r\n")
        self.assertEqual([reply.code for reply in result.replies], [550, 451])
        self.assertFalse(result.elsewhere)
        machine.begin(two())
        self.assertTrue(machine.take().startswith(b"RSET\r\nMAIL"))
        octets = b"250 r\r\n250 m\r\n250 a\r\n250 b\r\n354 go\r\n"
        self.assertEqual(machine.receive(octets), [SendBody()])

    def test_data_accepted_without_recipients(self):
        machine = opened()
        machine.begin(two())
        machine.take()
        self.assertEqual(machine.receive(b"250 m\r\n550 a\r\n550 b\r\n354 go\r\n"), [])
        self.assertEqual(machine.take(), b".\r\n")
        (done,) = machine.receive(b"250 whatever\r\n")
        self.assertEqual([reply.code for reply in done.result.replies], [550, 550])
        self.assertTrue(machine.ready)

    def test_data_accepted_without_recipients_then_421(self):
        machine = opened()
        machine.begin(two())
        machine.receive(b"250 m\r\n550 a\r\n550 b\r\n354 go\r\n")
        (done,) = machine.receive(b"421 bye\r\n")
        self.assertEqual([reply.code for reply in done.result.replies], [550, 550])
        self.assertTrue(machine.closed)

    def test_data_refused(self):
        _, result = self.refuse(b"250 m\r\n250 a\r\n550 b\r\n451 4.3.0 no\r\n")
        self.assertEqual([reply.code for reply in result.replies], [451, 550])

    def test_421_in_the_envelope(self):
        machine, result = self.refuse(b"250 m\r\n250 a\r\n421 bye\r\n")
        self.assertEqual([reply.code for reply in result.replies], [421, 421])
        self.assertTrue(machine.closed and result.elsewhere and not result.untouched)

    def test_421_before_anything(self):
        _, result = self.refuse(b"421 bye\r\n")
        self.assertTrue(result.untouched)

    def test_refused_in_the_body(self):
        for octets, code in ((b"552 big\r\n", 552), (b"421 bye\r\n", 421)):
            machine = opened()
            machine.begin(two())
            machine.receive(b"250 m\r\n250 a\r\n250 b\r\n354 go\r\n")
            (done,) = machine.receive(octets)
            self.assertEqual([reply.code for reply in done.result.replies], [code, code])
            self.assertTrue(machine.closed)
            machine.body_sent()
            self.assertTrue(machine.closed)

    def test_lost_at_each_step(self):
        steps = [b"", b"250 m\r\n", b"250 a\r\n", b"550 b\r\n", b"354 go\r\n"]
        for count in range(1, len(steps) + 1):
            machine = opened()
            machine.begin(two())
            machine.receive(b"".join(steps[:count]))
            result = machine.lost(LOST).result
            self.assertEqual(result.replies[0], LOST)
            self.assertEqual(result.replies[1].code, 451 if count < 4 else 550)
            self.assertEqual((result.untouched, result.elsewhere), (count == 1, True))

    def test_lost_after_the_dot(self):
        for octets in (b"", b"421 4.3.2 bye\r\n"):
            machine = opened()
            machine.begin(two())
            machine.receive(b"250 m\r\n250 a\r\n550 b\r\n354 go\r\n")
            machine.body_sent()
            events = machine.receive(octets)
            result = events[0].result if events else machine.lost(LOST).result
            self.assertEqual([reply.code // 100 for reply in result.replies], [4, 5])
            self.assertFalse(result.elsewhere)

    def test_what_was_not_asked(self):
        for octets in (
            b"354 m\r\n",
            b"250 m\r\n354 a\r\n",
            b"250 m\r\n250 a\r\n250 b\r\n250 d\r\n",
            b"what\r\n",
        ):
            machine = opened()
            machine.begin(two())
            self.assertRaises(RemoteFault, machine.receive, octets)
        machine = opened()
        self.assertRaises(RemoteFault, machine.receive, b"250 x\r\n")
        machine = opened()
        machine.begin(two())
        machine.receive(b"250 m\r\n250 a\r\n250 b\r\n354 go\r\n")
        self.assertRaises(RemoteFault, machine.receive, b"250 early\r\n")
        machine = opened()
        machine.begin(two())
        machine.receive(b"250 m\r\n250 a\r\n250 b\r\n354 go\r\n")
        machine.body_sent()
        self.assertRaises(RemoteFault, machine.receive, b"354 x\r\n")

    def test_what_follows_the_end_does_not_undo_it(self):
        for extra in (b"250 more\r\n", b"junk\r\n", b"421 bye\r\n"):
            machine = opened()
            machine.begin(two())
            machine.receive(b"250 m\r\n250 a\r\n250 b\r\n354 go\r\n")
            machine.body_sent()
            (done,) = machine.receive(b"250 ok\r\n" + extra)
            self.assertEqual(done.result.replies[0].code, 250)
            self.assertTrue(machine.closed)
            self.assertEqual(machine.receive(b"250 x\r\n"), [])

    def test_reset_refused(self):
        machine, _ = self.refuse(b"250 m\r\n550 a\r\n451 b\r\n554 none\r\n")
        machine.begin(two())
        self.assertRaises(RemoteFault, machine.receive, b"500 what\r\n")

    def test_421_while_idle(self):
        machine = opened()
        self.assertEqual(machine.receive(b"421 bye\r\n"), [])
        self.assertTrue(machine.closed)
        self.assertIsNone(machine.lost(LOST))

    def test_quit(self):
        machine = opened()
        machine.quit()
        self.assertEqual(machine.take(), b"QUIT\r\n")
        self.assertEqual(machine.receive(b"221 bye\r\n"), [])
        self.assertTrue(machine.closed)

    def test_probe(self):
        machine = opened()
        machine.begin(two(probe=True))
        self.assertNotIn(b"DATA", machine.take())
        (done,) = machine.receive(b"250 m\r\n250 a\r\n550 b\r\n")
        self.assertEqual([reply.code for reply in done.result.replies], [250, 550])
        machine.begin(two(probe=True))
        self.assertTrue(machine.take().startswith(b"RSET"))
        (done,) = machine.receive(b"250 r\r\n550 m\r\n503 a\r\n503 b\r\n")
        self.assertTrue(done.result.mail_refused)

    def test_replies_are_remembered_within_bounds(self):
        machine = opened()
        recipients = [Recipient(f"{number}@y", "y") for number in range(50)]
        machine.begin(Transaction("", recipients))
        octets = b"".join(b"250 ok %d\r\n" % number for number in range(51))
        machine.receive(octets + b"354 go\r\n")
        machine.body_sent()
        (done,) = machine.receive(b"250 ok\r\n")
        self.assertEqual(len(done.result.accepted), 50)


class StepByStepTests(SynchronousTestCase):
    def talk(self, machine: ClientMachine, *replies: str) -> list[str]:
        said = [machine.take().decode().strip()]
        self.events = []
        for reply in replies:
            self.events += machine.receive(reply.encode() + b"\r\n")
            said.append(machine.take().decode().strip())
        return said

    def test_one_by_one(self):
        machine = plain()
        machine.begin(two())
        said = self.talk(machine, "250 m", "250 a", "450 b", "354 go")
        self.assertEqual(said, ["MAIL FROM:<s@x>", "RCPT TO:<a@y>", "RCPT TO:<b@y>", "DATA", ""])
        self.assertEqual(self.events, [SendBody()])

    def test_nobody_accepted_no_data(self):
        machine = plain()
        machine.begin(two())
        self.talk(machine, "250 m", "550 a", "550 b")
        self.assertIsInstance(self.events[0], Done)
        machine.begin(two())
        self.assertEqual(self.talk(machine, "250 r", "550 m"), ["RSET", "MAIL FROM:<s@x>", ""])
        self.assertTrue(self.events[0].result.mail_refused)

    def test_probe(self):
        machine = plain()
        machine.begin(two(probe=True))
        self.talk(machine, "250 m", "550 a", "250 b")
        self.assertEqual([reply.code for reply in self.events[0].result.replies], [550, 250])


class LmtpTests(SynchronousTestCase):
    def test_a_reply_each(self):
        machine = opened(lmtp=True)
        machine.begin(Transaction("", [Recipient(f"{name}@y", "y") for name in "abc"], 10))
        machine.receive(b"250 m\r\n250 a\r\n550 b\r\n250 c\r\n354 go\r\n")
        machine.body_sent()
        self.assertEqual(machine.receive(b"250 a\r\n"), [])
        (done,) = machine.receive(b"452 4.2.2 c\r\n")
        self.assertEqual([reply.code for reply in done.result.replies], [250, 550, 452])
        self.assertTrue(machine.ready)

    def test_lost_between_the_replies(self):
        machine = opened(lmtp=True)
        machine.begin(two())
        machine.receive(b"250 m\r\n250 a\r\n250 b\r\n354 go\r\n")
        machine.body_sent()
        machine.receive(b"250 a\r\n")
        self.assertEqual([reply.code for reply in machine.lost(LOST).result.replies], [250, 451])

    def test_data_accepted_without_recipients(self):
        machine = opened(lmtp=True)
        machine.begin(two())
        machine.take()
        (done,) = machine.receive(b"250 m\r\n550 a\r\n550 b\r\n354 go\r\n")
        self.assertEqual(machine.take(), b".\r\n")
        self.assertTrue(machine.closed)
        self.assertEqual(done.result.replies[0].code, 550)


CODES = st.sampled_from(["250 ok", "250-a\r\n250 b", "354 go", "421 bye", "451 4.3.0 x", "550 no"])


class AnyChunkingTests(SynchronousTestCase):
    def run_through(self, chunks: list[bytes], pipelining: bool, lmtp: bool) -> list[object]:
        """Feed a session; bodies are sent at once."""
        machine = opened(lmtp=lmtp) if pipelining else plain(lmtp=lmtp)
        machine.begin(two())
        events: list[object] = []
        try:
            for chunk in chunks:
                for event in machine.receive(chunk):
                    events.append(event)
                    if isinstance(event, SendBody):
                        machine.body_sent()
        except RemoteFault:
            events.append(machine.lost(LOST))
        else:
            events.append(machine.lost(LOST))
        return [event for event in events if event is not None]

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(CODES, max_size=7),
        st.booleans(),
        st.booleans(),
        st.lists(st.integers(0, 200), max_size=10),
    )
    def test_same_events(self, replies, pipelining, lmtp, places):
        # One reply a chunk, against every reply cut anywhere (but none joined: the body
        # has to be sent in between).
        whole = [f"{reply}\r\n".encode() for reply in replies]
        pieces: list[bytes] = []
        for number, chunk in enumerate(whole):
            at = places[number % len(places)] % (len(chunk) + 1) if places else 0
            pieces += [part for part in (chunk[:at], chunk[at:]) if part]
        expected = self.run_through(whole, pipelining, lmtp)
        self.assertEqual(self.run_through(pieces, pipelining, lmtp), expected)
        done = [event for event in expected if isinstance(event, Done)]
        self.assertEqual(len(done), 1)
        self.assertEqual(len(done[0].result.replies), 2)

    @given(st.lists(st.binary(max_size=40), max_size=6), st.booleans())
    def test_only_remote_fault(self, chunks, started):
        machine = opened() if started else ClientMachine("me.test", want_tls=True)
        if started:
            machine.begin(two())
        try:
            for chunk in chunks:
                machine.receive(chunk)
        except RemoteFault:
            machine.lost(LOST)
            self.assertTrue(machine.closed)


class CommandTests(SynchronousTestCase):
    everything = Capabilities(True, 1000, True, True, True)

    def test_parameters_where_offered(self):
        transaction = Transaction("s@x", [], 5, True, True, "HDRS", "id")
        self.assertEqual(
            mail_command(transaction, self.everything),
            "MAIL FROM:<s@x> SIZE=5 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id\r\n",
        )
        self.assertEqual(mail_command(transaction, Capabilities()), "MAIL FROM:<s@x>\r\n")
        self.assertEqual(mail_command(Transaction("", []), self.everything), "MAIL FROM:<>\r\n")

    def test_recipients(self):
        recipient = Recipient("a@y", "y", "NEVER", "rfc822;x+40y")
        self.assertEqual(
            rcpt_command(recipient, self.everything),
            "RCPT TO:<a@y> NOTIFY=NEVER ORCPT=rfc822;x+40y\r\n",
        )
        self.assertEqual(rcpt_command(recipient, Capabilities()), "RCPT TO:<a@y>\r\n")
        only = Recipient("a@y", "y", orcpt="rfc822;z")
        self.assertEqual(rcpt_command(only, self.everything), "RCPT TO:<a@y> ORCPT=rfc822;z\r\n")
        only = Recipient("a@y", "y", "DELAY")
        self.assertEqual(rcpt_command(only, self.everything), "RCPT TO:<a@y> NOTIFY=DELAY\r\n")

    def test_capabilities(self):
        text = "x\nsize\nPipelining\nLIMITS MAILMAX=3 RCPTMAX=20 OTHER\n\nDSN junk\n8BITMIME"
        self.assertEqual(
            parse_capabilities(Reply(250, "", text)),
            Capabilities(True, 0, True, False, True, False, 20, 3),
        )
        for size, expected in (("12", 12), ("x", 0), ("9" * 30, 0), ("-1", 0)):
            found = parse_capabilities(Reply(250, "", f"x\nSIZE {size}"))
            self.assertEqual(found.size, expected)
        self.assertEqual(parse_capabilities(Reply(250, "", "x")), Capabilities())

    @given(st.text(max_size=80))
    def test_any_answer_to_ehlo(self, text):
        self.assertIsInstance(parse_capabilities(Reply(250, "", text)), Capabilities)

    def test_no_line_end_ever_goes_out(self):
        for text in ("a\r\nb\r\n", "a\nb\r\n", "a\rb\r\n", "a", "a\0\r\n"):
            self.assertRaises(LocalFault, encoded, [text], 1)
        for mailbox in ("a\r\nQUIT\r\n@y", "a\n@y"):
            for machine in (opened(), plain()):
                transaction = Transaction("", [Recipient(mailbox, "y")])
                self.assertRaises(LocalFault, machine.begin, transaction)
                self.assertEqual(machine.take(), b"")
                self.assertTrue(machine.ready)
