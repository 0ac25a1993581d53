"""Which messages a next hop cannot take, what replies mean, and who is left after them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.delivery.api import Fate, NextHopDown
from mailsecure.delivery.exchange import fate_of, header_is_ascii, transaction_for
from mailsecure.delivery.progress import Progress
from mailsecure.smtp.replies import Reply
from mailsecure.smtp.transaction import Capabilities, Result

from .support import message

OK = Reply(250, "2.0.0", "Ok")
LATER = Reply(451, "4.3.0", "Later")
NO = Reply(550, "5.1.1", "No")
ALL = Capabilities(True, 0, True, True, True)


class ExchangeTests(SynchronousTestCase):
    def test_header(self):
        self.assertTrue(header_is_ascii([b"A: b\r\n\r", "\nä".encode()]))
        self.assertFalse(header_is_ascii([b"A: b\r\n", "B: ä\r\n\r\n".encode()]))
        self.assertTrue(header_is_ascii([]))
        self.assertFalse(header_is_ascii(["ä".encode()]))
        self.assertTrue(header_is_ascii(iter([b"x" * (1 << 20), b"x", "ä".encode()])))

    def test_fates(self):
        self.assertEqual(
            [fate_of(reply, False) for reply in (OK, LATER, NO)],
            [Fate.RELAYED, Fate.DEFERRED, Fate.FAILED],
        )
        self.assertIs(fate_of(OK, True), Fate.DELIVERED)

    def test_transaction(self):
        mail = message("a@y.test", "ä@y.test")
        self.assertTrue(transaction_for(mail, mail.recipients).smtputf8)
        self.assertFalse(transaction_for(mail, mail.recipients[:1]).smtputf8)
        mail = message("a@y.test", sender="ö@x.test")
        self.assertTrue(transaction_for(mail, mail.recipients).smtputf8)


class ProgressTests(SynchronousTestCase):
    def fates(self, progress: Progress) -> dict[int, str]:
        return {one.index: str(one.reply) for one in progress.finish()}

    def test_fall_back_and_the_next_target(self):
        progress = Progress(message("a@y.test", "b@y.test", "c@y.test"))
        progress.begin_target()
        batch = progress.next_batch(Capabilities(rcpt_max=2))
        self.assertEqual([one.index for one in batch], [0, 1])
        progress.settle(batch, Result([NO, LATER], elsewhere=True), "hop", "", False)
        self.assertEqual([one.index for one in progress.here], [2])
        progress.begin_target()
        self.assertEqual([one.index for one in progress.next_batch(ALL)], [1, 2])
        progress.down = NextHopDown(Reply(421, "4.3.2", "Down"), "other")
        self.assertFalse(progress.over)
        self.assertEqual(
            self.fates(progress),
            {0: "550 5.1.1 No", 1: "451 4.3.0 Later", 2: "421 4.3.2 Down"},
        )

    def test_nobody_was_tried(self):
        progress = Progress(message("a@y.test"))
        self.assertRaises(NextHopDown, progress.finish)
        progress.down = NextHopDown(LATER)
        with self.assertRaises(NextHopDown) as caught:
            progress.finish()
        self.assertIs(caught.exception.reply, LATER)

    def test_header_is_looked_at_once(self):
        progress = Progress(message("a@y.test", smtputf8=True))
        progress.begin_target()
        self.assertFalse(progress.header_matters(ALL))
        self.assertTrue(progress.header_matters(Capabilities()))
        self.assertFalse(progress.header_matters(Capabilities()))
        progress.refuse_header()
        self.assertTrue(progress.over)
        self.assertEqual(list(progress.next_batch(ALL)), [])
        self.assertIn("5.6.9", self.fates(progress)[0])

    def test_size_and_sender(self):
        for offered, mail, enhanced in (
            (Capabilities(size=3), message("a@y.test"), "5.3.4"),
            (Capabilities(), message("a@y.test", sender="ö@x.test"), "5.6.7"),
            (Capabilities(), message("ö@y.test"), "5.6.7"),
        ):
            progress = Progress(mail)
            progress.begin_target()
            self.assertEqual(list(progress.next_batch(offered)), [])
            self.assertIn(enhanced, self.fates(progress)[0])
