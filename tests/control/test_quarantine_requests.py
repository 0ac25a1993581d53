"""Proves what is done to held messages over the control socket, for whom, and who learns."""

import base64
import email
import email.policy
import pwd
import random
from dataclasses import replace
from pathlib import Path
from unittest import mock

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control import quarantine_requests
from mailsecure.control.api import Forwarding
from mailsecure.control.deeds import Deeds
from mailsecure.control.requests import Requests
from mailsecure.control.wire import Kind, Refusal
from mailsecure.records.values import DeedEvent
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import (
    Freed,
    NewMessage,
    Quarantine,
    QuarantineFilter,
    SpoolFull,
)
from mailsecure.spool.body import BodyStore, MemoryBody
from mailsecure.spool.ids import IdSource, id_name, parse_id
from mailsecure.testing.spool import MemorySpool
from mailsecure.world import World

from .fakes import NOON, FakeScheduler, desk

CONTENT = (
    b"Received: from x\r\n\tby us\r\nFrom: Mallory <m@evil.example>\r\nSubject: hi\r\n\r\nbody\r\n"
)
SYMBOLS = (("DKIM_FAIL", 2.5, "bad signature"), ("VIRUS", 20.0, "Eicar"))


class InlineWorld(World):
    """A world whose threads are at once."""

    def in_thread(self, call, *arguments):
        return maybeDeferred(call, *arguments)


class Recorded:
    """A history that is a list."""

    def __init__(self):
        self.events = []

    def tell(self, event):
        self.events.append(event)


class QuarantineRequestsTests(SynchronousTestCase):
    """The requests, over a spool in memory."""

    def setUp(self):
        self.clock = Clock()
        self.now = NOON
        self.ids = IdSource(lambda: self.now, random.Random(1))
        self.spool = MemorySpool()
        self.spool.open()
        self.scheduler = FakeScheduler()
        self.recorder = Recorded()
        directory = Path(self.mktemp())
        directory.mkdir()
        self.bodies = BodyStore(directory, 1 << 20, spill_at=4096)
        self.world = InlineWorld(self.clock, self.clock, lambda: self.now, random.Random(2), None)
        self.desk = replace(
            desk(self.spool, self.scheduler),
            recorder=self.recorder,
            forwarding=Forwarding(
                "mx1.example.com", self.ids, self.bodies, lambda domain: domain == "example.com"
            ),
        )
        self.requests = Requests(self.world, self.desk)
        self.logged = []
        log = mock.Mock(info=lambda text, **fields: self.logged.append(text.format(**fields)))
        self.patch(quarantine_requests, "_log", log)
        user = mock.Mock(pw_name="alice")
        self.patch(pwd, "getpwuid", lambda uid: {7: user}[uid])

    def hold(self, *mailboxes, age=3600.0, held=None, **more):
        """Have a message in the quarantine; return its name."""
        mailboxes = mailboxes or ("bob@example.com",)
        recipients = tuple(Recipient(each, each.rpartition("@")[2]) for each in mailboxes)
        indexes = range(len(mailboxes)) if held is None else held
        facts = {"sender": "m@evil.example", "body": CONTENT, "utf8": False} | more
        message = NewMessage(
            self.ids.draw(),
            Envelope(facts.pop("sender"), recipients, smtputf8=facts.pop("utf8"), envid="E1"),
            Arrival("192.0.2.1", "evil", "ESMTPS", "S1", {"tls": "TLSv1.3"}),
            self.now - age,
            MemoryBody([facts.pop("body")]),
            self.now - age,
            Quarantine(
                frozenset(indexes),
                **{"reason": "score of 22.5", "score": 22.5, "symbols": SYMBOLS, "subject": "hi"}
                | facts,
            ),
        )
        self.successResultOf(self.spool.accept(message))
        return id_name(message.id)

    def asked(self, request, uid=7, **arguments):
        """Return the Deferred of an answer, and the items that came before it."""
        items = []

        async def send(item):
            items.append(item)

        answer = self.requests.answer(f"quarantine.{request}", arguments, uid, send)
        deferred = Deferred.fromCoroutine(answer)
        self.clock.pump([0.0] * 30)
        return deferred, items

    def done(self, request, **arguments):
        return self.successResultOf(self.asked(request, **arguments)[0])

    def refusal(self, request, **arguments):
        return self.failureResultOf(self.asked(request, **arguments)[0], Refusal).value

    def left(self):
        found = self.successResultOf(self.spool.quarantined(QuarantineFilter(), 9999))
        return [id_name(each.id) for each in found]

    # -- looking

    def test_list(self):
        """An item a message, the newest first, with all that it says."""
        old = self.hold("bob@example.com", "c@example.com", age=7200, header_from="M <m@e>")
        new = self.hold(sender="", symbols=())
        deferred, items = self.asked("list")
        self.assertEqual(self.successResultOf(deferred), {"messages": 2, "recipients": 3})
        self.assertEqual([each["id"] for each in items], [new, old])
        self.assertEqual(
            items[1],
            {
                "id": old,
                "sender": "m@evil.example",
                "arrived": NOON - 7200,
                "octets": len(CONTENT),
                "stored": len(CONTENT),
                "client": "192.0.2.1",
                "recipients": ["bob@example.com", "c@example.com"],
                "reason": "score of 22.5",
                "score": 22.5,
                "symbols": [["DKIM_FAIL", 2.5, "bad signature"], ["VIRUS", 20.0, "Eicar"]],
                "subject": "hi",
                "from": "M <m@e>",
            },
        )
        _, items = self.asked("list", oldest_first=True, limit=1)
        self.assertEqual([each["id"] for each in items], [old])

    def test_filters(self):
        """Each argument reaches the spool as what it means."""
        one = self.hold(age=86400.0, subject="Invoice")
        two = self.hold("carol@example.com", sender="", reason="macro", symbols=())
        for arguments, names in (
            ({}, [two, one]),
            ({"id": one}, [one]),
            ({"recipients": ["carol@example.com", "nobody@x"]}, [two]),
            ({"sender": "@evil.example"}, [one]),
            ({"sender": "<>"}, [two]),
            ({"held_for": "virus"}, [one]),
            ({"subject": "INV"}, [one]),
            ({"since": 3600.0}, [two]),
            ({"older": 3600}, [one]),
            ({"older": 3599, "since": 3601}, [two]),
            ({"limit": 0}, [two, one]),
        ):
            _, items = self.asked("list", **arguments)
            self.assertEqual([each["id"] for each in items], names, arguments)

    def test_a_long_list_is_paged(self):
        names = [self.hold(age=1000.0 - n) for n in range(250)]
        deferred, items = self.asked("list")
        self.assertEqual(self.successResultOf(deferred)["messages"], 250)
        self.assertEqual([each["id"] for each in items], names[::-1])
        deferred, items = self.asked("list", limit=150)
        self.assertEqual(self.successResultOf(deferred)["messages"], 150)

    def test_show(self):
        name = self.hold(body=CONTENT + b"x" * 100_000)
        deferred, items = self.asked("show", id=name)
        shown = self.successResultOf(deferred)
        self.assertEqual(
            (shown["recipients"], shown["reason"], shown["helo"], shown["envid"]),
            (["bob@example.com"], "score of 22.5", "evil", "E1"),
        )
        (content,) = [each["content"] for each in items]
        self.assertTrue(_decoded(content).endswith(b"\r\nSubject: hi\r\n"))
        self.assertEqual(self.logged, [])
        _, items = self.asked("show", id=name, full=True)
        self.assertEqual(
            b"".join(_decoded(each["content"]) for each in items), CONTENT + b"x" * 100_000
        )
        self.assertEqual(self.logged, [f"content of {name} shown to alice (uid 7)"])

    def test_queue_show_knows_where_it_is(self):
        name = self.hold()

        async def send(item):
            raise AssertionError("nothing to show")

        answer = self.requests.answer("queue.show", {"id": name}, 0, send)
        refusal = self.failureResultOf(Deferred.fromCoroutine(answer), Refusal).value
        self.assertEqual(refusal.details, (f"It is held: see mailsecure quarantine show {name}.",))

    # -- acting

    def test_release(self):
        """It is due, delivery looks, the log and the history know who and why."""
        name = self.hold("bob@example.com", "c@example.com")
        kept = self.hold()
        done = self.done("release", id=name, reason="looks good")
        self.assertEqual(done, {"messages": 1, "recipients": 2})
        self.assertEqual(self.left(), [kept])
        (queued,) = self.successResultOf(self.spool.due("example.com", NOON, 9, frozenset()))
        self.assertEqual((id_name(queued.id), len(queued.recipients)), (name, 2))
        self.assertEqual(self.scheduler.calls, [("wake",)])
        self.assertEqual(
            self.recorder.events,
            [
                DeedEvent(
                    parse_id(name),
                    NOON,
                    "released",
                    "alice (uid 7)",
                    "looks good",
                    ("bob@example.com", "c@example.com"),
                )
            ],
        )
        self.assertEqual(
            self.logged,
            [
                f"{name}: released from quarantine by alice (uid 7) to=<bob@example.com> nrcpt=2"
                " reason=looks good"
            ],
        )
        self.assertEqual(self.done("release", id=name), {"messages": 0, "recipients": 0})
        self.assertEqual(len(self.recorder.events), 1)
        self.assertEqual(len(self.scheduler.calls), 1)

    def test_release_for_some(self):
        name = self.hold("bob@example.com", "c@example.com", "d@example.com")
        wanted = ["BOB@example.com", "d@exam"]
        self.assertEqual(self.done("release", id=name, recipients=wanted)["recipients"], 1)
        wanted = ["d"]
        self.assertEqual(self.done("release", id=name, recipients=wanted)["recipients"], 1)
        self.assertEqual(self.left(), [name])
        self.assertEqual(self.recorder.events[0].recipients, ("bob@example.com",))

    def test_delete(self):
        name, kept = self.hold(), self.hold(sender="x@good.example")
        self.assertEqual(self.done("delete", sender="@evil.example", uid=4711)["messages"], 1)
        self.assertEqual(self.left(), [kept])
        self.assertEqual(self.scheduler.calls, [])
        (event,) = self.recorder.events
        self.assertEqual((event.id, event.deed, event.who), (parse_id(name), "deleted", "uid 4711"))
        self.assertEqual(self.successResultOf(self.spool.totals()), (0, 0, 0))

    def test_all(self):
        """Hundreds are done, a page at a time, each told."""
        names = [self.hold(age=1000.0 - n) for n in range(250)]
        release = mock.Mock(side_effect=self.spool.release_quarantined)
        self.patch(self.spool, "release_quarantined", release)
        self.assertEqual(self.done("release", all=True), {"messages": 250, "recipients": 250})
        self.assertEqual([len(call.args[0]) for call in release.mock_calls], [100, 100, 50])
        self.assertEqual([each.id for each in self.recorder.events], list(map(parse_id, names)))
        self.assertEqual(self.scheduler.calls, [("wake",)])

    def test_without_a_history(self):
        requests_ = Requests(self.world, replace(self.desk, recorder=None))
        answer = requests_.answer("quarantine.delete", {"id": self.hold()}, 7, None)
        deferred = Deferred.fromCoroutine(answer)
        self.clock.pump([0.0] * 3)
        self.assertEqual(self.successResultOf(deferred)["messages"], 1)

    def test_a_fault_comes_through(self):
        self.hold()
        self.spool.fail_with = SpoolFull("no room")
        self.failureResultOf(self.asked("delete", all=True)[0], SpoolFull)
        self.assertEqual(self.recorder.events, [])

    # -- forwarding

    def forwarded(self, **arguments):
        """Forward; return the answer, the queued copy and its parsed content."""
        done = self.done("forward", address="Admin@EXAMPLE.com", **arguments)
        copy = self.successResultOf(self.spool.content(parse_id(done["copy"])))
        content = b"".join(copy.body.pieces())
        return done, copy, content

    def test_forward(self):
        """A new message, from nobody, with the original to the octet."""
        name = self.hold("bob@example.com", "c@example.com", header_from="M <m@evil.example>")
        done, copy, content = self.forwarded(id=name, reason="is it malware?")
        self.assertEqual(done["deleted"], 0)
        self.assertEqual(self.left(), [name])
        self.assertEqual(
            copy.envelope, Envelope("", (Recipient("Admin@example.com", "example.com", "NEVER"),))
        )
        self.assertEqual(copy.arrival.facts, {"forwarded": name, "by": "alice (uid 7)"})
        parsed = email.message_from_bytes(content, policy=email.policy.SMTP)
        self.assertEqual(parsed.defects, [])
        self.assertIn(b"\r\nTo: <Admin@example.com>\r\n", content)
        subject = f"Message {name} from the quarantine of mx1.example.com"
        self.assertEqual(parsed["Subject"], subject)
        self.assertEqual(parsed["Message-ID"], f"<{done['copy']}@mx1.example.com>")
        text, attached = parsed.iter_parts()
        self.assertEqual(attached.get_content_type(), "message/rfc822")
        self.assertEqual(attached.get_filename(), f"{name}.eml")
        self.assertEqual(content.count(CONTENT), 1)
        self.assertEqual(attached.get_content()["Subject"], "hi")
        for line in (
            "held because  score of 22.5",
            "sender        <m@evil.example>",
            "for           <bob@example.com> and 1 more",
            "forwarded by  alice (uid 7)",
            "because       is it malware?",
        ):
            self.assertIn(line, text.get_content())
        self.assertEqual(self.scheduler.calls, [("wake",)])
        event, copied = self.recorder.events
        self.assertEqual(
            event,
            DeedEvent(
                parse_id(name),
                NOON,
                "forwarded",
                "alice (uid 7)",
                "is it malware?",
                ("Admin@example.com",),
                parse_id(done["copy"]),
            ),
        )
        # The copy is a message of its own, so what becomes of it can be asked.
        self.assertEqual(
            (copied.id, copied.time, copied.recipients, copied.subject, copied.octets),
            (copy.id, NOON, (("Admin@example.com", "accept"),), subject, len(content)),
        )
        self.assertEqual(copied.message_id, f"{done['copy']}@mx1.example.com")
        self.assertEqual((copied.reverse_path, copied.action), ("", "accept"))
        self.assertEqual(self.bodies.used, 0)

    def test_forward_and_delete(self):
        name = self.hold()
        done, _, _ = self.forwarded(id=name, delete=True)
        self.assertEqual(done["deleted"], 1)
        self.assertEqual(self.left(), [])
        deeds = [each.deed for each in self.recorder.events if isinstance(each, DeedEvent)]
        self.assertEqual(deeds, ["forwarded", "deleted"])

    def test_forward_what_is_large_and_not_ascii(self):
        """The envelope says what is in it; a file is as good as memory."""
        original = CONTENT + "naïve\r\n".encode() * 20_000 + b"no end of line"
        name = self.hold(body=original)
        _, copy, content = self.forwarded(id=name)
        self.assertTrue(copy.envelope.eight_bit)
        self.assertFalse(copy.envelope.smtputf8)
        parsed = email.message_from_bytes(content, policy=email.policy.SMTP)
        self.assertEqual(parsed["Content-Transfer-Encoding"], "8bit")
        self.assertEqual(content.count(original + b"\r\n--="), 1)
        utf8 = self.hold(body="Subject: é\r\n\r\n".encode(), utf8=True)
        _, copy, content = self.forwarded(id=utf8)
        self.assertTrue(copy.envelope.smtputf8)
        self.assertIn(b"Content-Type: message/global\r\n", content)
        self.assertEqual(self.bodies.used, 0)

    def test_nothing_of_a_peer_becomes_structure(self):
        """A subject or a reason with line ends, controls or a boundary stays text."""
        evil = 'x"\r\n\r\n--=_\r\nContent-Type: text/html\x1b[31m\u202e' + "é" * 2000
        name = self.hold(subject=evil, reason=evil, header_from=evil, body=b"--=_\r\n--=_--\r\n")
        _, _, content = self.forwarded(id=name)
        parsed = email.message_from_bytes(content, policy=email.policy.SMTP)
        self.assertEqual(
            [each.get_content_type() for each in parsed.iter_parts()],
            ["text/plain", "message/rfc822"],
        )
        self.assertNotIn(b"\x1b", content)
        self.assertLessEqual(max(map(len, content.split(b"\r\n"))), 998)

    def test_forward_that_fails(self):
        """Without room there is no copy, no deed, and no memory is kept."""
        name = self.hold(body=CONTENT + b"x" * 100_000)
        self.patch(self.spool, "accept", lambda message: fail(SpoolFull("no room")))
        self.failureResultOf(
            self.asked("forward", id=name, address="a@example.com", delete=True)[0], SpoolFull
        )
        self.assertEqual((self.left(), self.recorder.events, self.bodies.used), ([name], [], 0))
        self.patch(self.bodies, "open_file", mock.Mock(side_effect=SpoolFull("no room")))
        self.failureResultOf(self.asked("forward", id=name, address="a@example.com")[0], SpoolFull)
        self.assertEqual(self.bodies.used, 0)

    def test_addresses_that_will_not_do(self):
        name = self.hold()
        for address in (
            "", "admin", "a@", "a@b@c", "a b@example.com", "a@example.com> x", "<a@example.com>",
            "a@example.com\r\nRCPT TO:<x@y>", "\ud800@example.com", None, 5, ["a@example.com"],
            "@x:a@example.com>", "a@-x.com", "\x00@example.com",
        ):  # fmt: skip
            refusal = self.refusal("forward", id=name, address=address)
            self.assertEqual(refusal.kind, Kind.USAGE, address)
            self.assertTrue(str(refusal).endswith("is no mail address"), address)
        refusal = self.refusal("forward", id=name, address="a@elsewhere.example")
        self.assertEqual(str(refusal), "there is no way for mail to elsewhere.example")
        self.assertEqual(self.successResultOf(self.spool.totals()), (0, 0, 0))

    def test_a_node_that_cannot_forward(self):
        self.requests = Requests(self.world, replace(self.desk, forwarding=None))
        self.assertEqual(self.refusal("forward", id=self.hold()).kind, Kind.UNAVAILABLE)

    # -- refusals

    def test_what_is_not_there(self):
        queued = self.hold(held=())
        self.assertEqual(self.refusal("show", id=queued).kind, Kind.ABSENT)
        refusal = self.refusal("forward", id=queued, address="a@example.com")
        self.assertEqual(refusal.kind, Kind.ABSENT)
        self.assertEqual(str(refusal), f"no message {queued} in the quarantine")

    def test_usage(self):
        name = self.hold()
        for request, arguments in (
            ("nonsense", {}),
            ("release", {}),
            ("delete", {"all": 1}),
            ("delete", {"recipients": []}),
            ("release", {"recipient": "misspelt@example.com", "all": True}),
            ("list", {"recipients": "a@example.com"}),
            ("delete", {"recipients": [""]}),
            ("delete", {"recipients": [5]}),
            ("delete", {"recipients": ["a"] * 101}),
            ("list", {"limit": -1}),
            ("list", {"limit": "5"}),
            ("list", {"limit": True}),
            ("list", {"since": "1h"}),
            ("list", {"since": -1}),
            ("list", {"older": True}),
            ("list", {"older": 1e99}),
            ("list", {"older": float("nan")}),
            ("list", {"sender": 5}),
            ("list", {"all": True}),
            ("show", {"id": "nonsense"}),
            ("show", {}),
            ("show", {"id": 5}),
            ("release", {"id": name, "reason": "two\nlines"}),
            ("release", {"id": name, "reason": "x" * 201}),
            ("release", {"id": name, "reason": 5}),
        ):
            refusal = self.refusal(request, **arguments)
            self.assertEqual(refusal.kind, Kind.USAGE, (request, arguments))
        self.assertEqual(self.left(), [name])

    def test_the_queue_does_not_reach_it(self):
        """The queue's own requests leave what is held alone."""
        name = self.hold()

        async def send(item):
            raise AssertionError("nothing to list")

        for request, arguments in (
            ("queue.list", {}),
            ("queue.delete", {"all": True}),
            ("queue.release", {"all": True}),
            ("queue.hold", {"id": name}),
        ):
            answer = self.requests.answer(request, arguments, 0, send)
            done = self.successResultOf(Deferred.fromCoroutine(answer))
            self.assertEqual(done["recipients"], 0)
        for state in ("quarantined", "quarantine"):
            answer = self.requests.answer("queue.delete", {"state": state}, 0, send)
            self.failureResultOf(Deferred.fromCoroutine(answer), Refusal)
        self.assertEqual(self.left(), [name])


class DeedsTests(SynchronousTestCase):
    """What nobody asked for is told as well."""

    def test_expired(self):
        recorder = Recorded()
        deeds = Deeds(lambda: NOON, recorder)
        deeds.expired(Freed(5, ("a@b",)), "held for 30d")
        self.assertEqual(
            recorder.events,
            [DeedEvent(5, NOON, "expired", "mailsecure", "held for 30d", ("a@b",))],
        )
        Deeds(lambda: NOON, None).expired(Freed(5, ("a@b",)), "held for 30d")


def _decoded(content):
    return base64.b64decode(content)
