"""Callouts: asked once, remembered, and harmless when the next hop is away."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.errors import RemoteFault
from mailsecure.gateway import verify
from mailsecure.gateway.verify import RecipientVerifier
from mailsecure.smtp.envelope import Recipient
from mailsecure.smtp.replies import Reply

SETTINGS = replace(parse_config("", "test.ini").relay, verify_recipients=True)
A = Recipient("a@us.example", "us.example")
B = Recipient("b@us.example", "us.example")


class RecipientVerifierTests(SynchronousTestCase):
    """RecipientVerifier with a next hop in our hands."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[Recipient, Deferred[Reply]]] = []
        self.verifier = RecipientVerifier(self.clock, SETTINGS, self.probe)

    def probe(self, recipient: Recipient) -> Deferred[Reply]:
        question: Deferred[Reply] = Deferred()
        self.asked.append((recipient, question))
        return question

    def ask(self, recipient: Recipient) -> Deferred[Reply | None]:
        answer = self.verifier.refusal(recipient)
        assert isinstance(answer, Deferred)
        return answer

    def test_known_user(self) -> None:
        """A yes is remembered for verify_positive."""
        answer = self.ask(A)
        self.asked[0][1].callback(Reply(250, "2.1.5", "Ok"))
        self.assertIsNone(self.successResultOf(answer))
        self.assertIsNone(self.verifier.refusal(A))
        self.clock.advance(SETTINGS.verify_positive + 1)
        self.ask(A)
        self.assertEqual(len(self.asked), 2)

    def test_unknown_user(self) -> None:
        """A no is a refusal of ours, remembered for verify_negative."""
        answer = self.ask(A)
        self.asked[0][1].callback(Reply(550, "5.1.1", "secret name of the server behind"))
        refusal = self.successResultOf(answer)
        self.assertEqual((refusal.code, refusal.enhanced), (550, "5.1.1"))
        self.assertNotIn("secret", refusal.text)
        self.assertIs(self.verifier.refusal(A), refusal)
        self.clock.advance(SETTINGS.verify_negative + 1)
        self.ask(A)

    def test_shared(self) -> None:
        """Two sessions that ask at once share one question."""
        one, two = self.ask(A), self.ask(A)
        self.asked[0][1].callback(Reply(550, "5.1.1", "no"))
        self.assertEqual(len(self.asked), 1)
        self.assertIs(self.successResultOf(one), self.successResultOf(two))

    def test_trouble_is_yes(self) -> None:
        """4xx, a next hop that is away, silence and bugs take the recipient, unremembered."""
        answer = self.ask(A)
        self.asked[0][1].callback(Reply(450, "4.2.0", "later"))
        self.assertIsNone(self.successResultOf(answer))
        for failure in (RemoteFault("down"), RuntimeError("bug")):
            answer = self.ask(A)
            self.asked[-1][1].errback(failure)
            self.assertIsNone(self.successResultOf(answer))
        answer = self.ask(A)
        self.clock.advance(SETTINGS.verify_timeout)
        self.assertIsNone(self.successResultOf(answer))

    def test_bounds(self) -> None:
        """Neither the questions nor the memory grow without bound."""
        self.patch(verify, "MAX_QUESTIONS", 1)
        self.patch(verify, "MAX_REMEMBERED", 1)
        answer = self.ask(A)
        self.assertIsNone(self.verifier.refusal(B))
        self.asked[0][1].callback(Reply(250, "", "Ok"))
        self.successResultOf(answer)
        self.ask(B)
        self.asked[1][1].callback(Reply(250, "", "Ok"))
        self.assertIsNone(self.verifier.refusal(B))
        self.ask(A)
        self.assertEqual(len(self.asked), 3)
