"""Proves what ``trace`` and ``why`` ask, answer and show."""

import io
import json
import sys
from pathlib import Path
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control import asking, command, records_requests
from mailsecure.control.records_command import _ACTIONS, _STAGES
from mailsecure.control.records_requests import ACTIONS, MOST, MOST_COUNTED, STAGES
from mailsecure.control.records_tables import explained, traced
from mailsecure.control.requests import Requests
from mailsecure.control.wire import Kind, Refusal
from mailsecure.records.api import RecordsAway, Search, TooWide
from mailsecure.spool.ids import id_name

from .fakes import FIRST, NOON, desk, world

EVIL = "evil\x1b[31m\r\n[red]{0.__class__}%s\u202e"
SHOWN = "evil\\x1b[31m\\x0d\\x0a[red]{0.__class__}%s\\u202e"
ID, SESSION = int(FIRST), int(FIRST) - 4096
NAME, SESSION_NAME = id_name(FIRST), id_name(SESSION)


def symbol(name="SPF_FAIL", score=4.0, **more):
    return {
        "name": name,
        "score": score,
        "reason": "not allowed",
        "check": "spf",
        "action": "",
    } | more


def session(**more):
    return {
        "kind": "session",
        "id": SESSION,
        "time": NOON - 1,
        "node": "mx1",
        "client": "192.0.2.1",
        "client_name": "mail.sender.example",
        "port": 2525,
        "helo": "mail",
        "tls": "TLSv1.3",
        "via": "",
        "started": NOON - 1,
        "seconds": 2.5,
        "messages": 1,
        "refused": 0,
        "errors": 0,
        "ending": "quit",
    } | more


def attempt(**more):
    return {
        "time": NOON + 61,
        "recipient": "bob@example.com",
        "next_hop": "10.0.0.5:25",
        "status": "sent",
        "dsn": "2.0.0",
        "reply": "250 2.0.0 Ok: queued as 4711",
        "delay": 61.0,
    } | more


def message(**more):
    return {
        "kind": "message",
        "id": ID,
        "session_id": SESSION,
        "session": session(),
        "time": NOON,
        "node": "mx1",
        "client": "192.0.2.1",
        "client_name": "mail.sender.example",
        "helo": "mail",
        "sender": "alice@sender.example",
        "header_from": "alice@sender.example",
        "subject": "The annual report",
        "message_id": "<1@sender.example>",
        "octets": 2048,
        "score": 4.0,
        "action": "accept",
        "reply": "250 2.0.0 Accepted",
        "seconds": 0.25,
        "recipients": [{"recipient": "bob@example.com", "action": "accept"}],
        "symbols": [symbol()],
        "timings": [["spf", 0.01]],
        "thresholds": [["tag", 5.0], ["quarantine", 10.0], ["reject", 1e9]],
        "attempts": [attempt()],
        "deeds": [],
    } | more


def refusal(**more):
    return {
        "kind": "refusal",
        "id": ID,
        "time": NOON,
        "session": SESSION,
        "node": "mx1",
        "client": "203.0.113.7",
        "client_name": "",
        "stage": "rcpt",
        "helo": "",
        "sender": "spam@evil.example",
        "recipient": "bob@example.com",
        "reply": "550 5.7.1 No",
        "reason": "listed",
        "symbols": [symbol("DNSBL", 8.0)],
    } | more


class FakeHistory:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, *items):
        self.items = list(items)
        self.asked = []
        self.fault = None

    async def trace(self, search):
        self.asked.append(search)
        if self.fault:
            raise self.fault
        return self.items

    async def count(self, search):
        self.asked.append(search)
        return {"messages": {}, "refusals": {}, "sessions": 1, "unfinished": 0.0}

    async def message(self, id):
        self.asked.append(id)
        if self.fault:
            raise self.fault
        return self.items[0] if self.items else None


class RequestTests(SynchronousTestCase):
    """The requests, over a fake history."""

    def setUp(self):
        self.history = FakeHistory(refusal(), message())
        self.sent = []

    def ask(self, request, **arguments):
        async def send(item):
            self.sent.append(item)

        requests = Requests(world(Clock()), desk(history=self.history))
        return Deferred.fromCoroutine(requests.answer(request, arguments, 0, send))

    def refusal(self, request, **arguments):
        return self.failureResultOf(self.ask(request, **arguments), Refusal).value

    def test_trace(self):
        done = self.successResultOf(
            self.ask(
                "trace", text=" x ", sender="alice", recipient="bob", subject="s", client="192.",
                id=NAME.lower(), since=NOON, until=NOON + 1, action="reject", limit=7,
            )
        )  # fmt: skip
        self.assertEqual(done, {"found": 2, "unfinished": None})
        wanted = Search("x", "alice", "bob", "s", "192.", ID, 0, NOON, NOON + 1, "reject", limit=7)
        self.assertEqual(self.history.asked, [wanted])
        self.assertEqual([item["kind"] for item in self.sent], ["message", "refusal"])
        self.assertEqual((self.sent[0]["id"], self.sent[1]["session"]), (NAME, SESSION_NAME))
        self.assertEqual(self.sent[0]["session"]["id"], SESSION_NAME)

    def test_more_to_ask_for(self):
        given = {"helo": "pc", "reply": "4711", "symbol": "EICAR", "stage": "connect"}
        self.successResultOf(self.ask("trace", **given))
        self.assertEqual(self.history.asked, [Search(**given)])

    def test_brackets(self):
        """An address may come from the log, or a header field, as it stands there."""
        for text, meant in (("<a@x.test>", "a@x.test"), ("<>", "<>"), ("<", "<"), ("<a", "<a")):
            self.history.asked.clear()
            self.successResultOf(self.ask("trace", text=text, sender=text, subject=text))
            self.assertEqual(self.history.asked, [Search(text=meant, sender=meant, subject=text)])

    def test_too_wide(self):
        self.history.fault = TooWide("name a smaller network")
        self.assertEqual(self.refusal("trace", client="::/0").kind, Kind.USAGE)

    def test_defaults(self):
        self.successResultOf(self.ask("trace"))
        self.assertEqual(self.history.asked, [Search()])

    def test_count(self):
        done = self.successResultOf(self.ask("count", client="192.", action="reject"))
        self.assertEqual((done["sessions"], done["unfinished"]), (1, None))
        wanted = Search(client="192.", action="reject", limit=MOST_COUNTED)
        self.assertEqual(self.history.asked, [wanted])
        self.assertEqual(self.refusal("count", limit=3).kind, Kind.USAGE)

    def test_beginning_of_an_id(self):
        self.successResultOf(self.ask("trace", id=NAME[:8]))
        search = self.history.asked[0]
        self.assertTrue(search.id <= ID <= search.last_id)
        self.assertEqual((id_name(search.id)[:8], id_name(search.last_id)[:8]), (NAME[:8],) * 2)
        self.assertEqual(self.refusal("trace", id="not an id").kind, Kind.USAGE)

    def test_unfinished(self):
        self.history.items = [message(), {"kind": "unfinished", "time": NOON - 5}]
        done = self.successResultOf(self.ask("trace"))
        self.assertEqual(done, {"found": 1, "unfinished": NOON - 5})

    def test_arguments_that_are_none(self):
        for arguments in (
            {"text": 5},
            {"sender": "x" * 201},
            {"since": "yesterday"},
            {"since": True},
            {"until": -1},
            {"until": float("nan")},
            {"limit": 0},
            {"limit": MOST + 1},
            {"limit": True},
            {"action": "explode"},
            {"stage": "door"},
            {"client": "192.0.2.0/33"},
            {"client": "mail/24"},
            {"helo": "x" * 201},
            {"id": 5},
            {"id": "U" * 13},
            {"recipients": "x"},
        ):
            self.assertEqual(self.refusal("trace", **arguments).kind, Kind.USAGE, arguments)
        for arguments in ({}, {"id": "x"}, {"id": NAME, "more": 1}):
            self.assertEqual(self.refusal("why", **arguments).kind, Kind.USAGE, arguments)
        self.assertEqual(self.history.asked, [])

    def test_why(self):
        copy = {"time": NOON, "deed": "forwarded", "who": "uid 0", "reason": "", "recipients": []}
        self.history.items = [message(session=None, deeds=[copy | {"copy": ID}])]
        found = self.successResultOf(self.ask("why", id=NAME))
        self.assertEqual((found["id"], found["session"]), (NAME, None))
        self.assertEqual(found["deeds"][0]["copy"], NAME)
        self.history.items = [
            {"kind": "session", "id": SESSION, "session": session(), "refusals": [refusal()]}
            | {"messages": [message(session_id=0)]}
        ]
        found = self.successResultOf(self.ask("why", id=SESSION_NAME))
        self.assertEqual(found["refusals"][0]["id"], NAME)
        self.assertEqual((found["messages"][0]["session_id"], found["id"]), ("", SESSION_NAME))
        self.history.items = []
        self.assertEqual(self.refusal("why", id=NAME).kind, Kind.ABSENT)

    def test_away(self):
        self.history.fault = RecordsAway("gone")
        for request in ("trace", "why"):
            refusal = self.refusal(request, **({"id": NAME} if request == "why" else {}))
            self.assertEqual((refusal.kind, str(refusal)), (Kind.UNAVAILABLE, "gone"))
        self.history = None
        self.assertIn("no history is kept", str(self.refusal("trace")))

    def test_actions_are_the_same(self):
        self.assertEqual((_ACTIONS, _STAGES), (ACTIONS, STAGES))


def named(item):
    """Return an item as the command gets it."""
    return json.loads(json.dumps(records_requests.named(item)))


class TableTests(SynchronousTestCase):
    """What people see."""

    def lines(self, show, item):
        lines = list(show(named(item)))
        for line in lines:
            self.assertTrue(line.isprintable(), line)
        return lines

    def test_a_message(self):
        deed = {"time": NOON + 90000, "deed": "released", "who": "uid 0", "reason": "it is well"}
        lines = self.lines(
            traced,
            message(
                header_from="boss@else.example",
                attempts=[attempt(), attempt(time=NOON + 1, status="deferred", next_hop="")],
                deeds=[deed | {"recipients": ["bob@example.com"], "copy": ID}],
                symbols=[symbol("A", 0.0), symbol("CLAMAV", 0.0, action="reject"), symbol()],
            ),
        )
        self.assertEqual(lines[0], f"{NAME}  2026-11-22 12:00:00 UTC  accept, score 4")
        text = "\n".join(lines)
        self.assertIn("<alice@sender.example> (From: boss@else.example) to <bob@example.com>", text)
        self.assertIn(
            f"192.0.2.1 (mail.sender.example):2525, HELO mail, TLSv1.3, session {SESSION_NAME}",
            text,
        )
        self.assertIn("SPF_FAIL 4, A, CLAMAV (reject) in 250ms", text)
        self.assertIn(
            "12:01:01  <bob@example.com> sent to 10.0.0.5:25 after 1m1s: 250 2.0.0 Ok", text
        )
        self.assertLess(text.index("deferred after"), text.index("sent to"))
        self.assertIn(
            f"2026-11-23 13:00:00  released by uid 0 for <bob@example.com> as {NAME}: it is", text
        )

    def test_a_session_that_lasts(self):
        lines = self.lines(
            traced, message(session=None, subject="", message_id="", symbols=[], reply="")
        )
        self.assertIn(f"session {SESSION_NAME}, on mx1", "\n".join(lines))
        lines = self.lines(traced, message(session=None, session_id=0, client="", attempts=[]))
        self.assertNotIn("client", "\n".join(lines))

    def test_many(self):
        many = [{"recipient": f"r{n}@x.test", "action": "tag"} for n in range(30)]
        lines = self.lines(
            traced, message(recipients=many, symbols=[symbol(f"S{n}") for n in range(30)])
        )
        self.assertIn("<r11@x.test> (tag) +18", lines[1])
        self.assertIn("+18 in", "\n".join(lines))

    def test_many_recipients_share_a_line(self):
        """A list of a thousand members is not a thousand lines, unless they fared differently."""
        same = [attempt(recipient=f"r{n}@x.test") for n in range(30)]
        other = attempt(recipient="x@x.test", status="deferred")
        later = attempt(recipient="y@x.test", time=NOON + 99)
        lines = self.lines(traced, message(attempts=[other, *same, later]))[-3:]
        self.assertTrue(lines[0].startswith("    12:01:01  <r0@x.test>, <r1@x.test>, "), lines)
        self.assertIn("<r11@x.test> +18 sent to 10.0.0.5:25 after 1m1s: 250", lines[0])
        self.assertIn("12:01:01  <x@x.test> deferred", lines[1])
        self.assertIn("12:01:39  <y@x.test> sent", lines[2])

    def test_named_as_in_the_message(self):
        for name in ("1@x.test", "<1@x.test>"):
            self.assertIn("<1@x.test>, 2K", "\n".join(self.lines(traced, message(message_id=name))))

    def test_refusals_name_whom_they_know(self):
        lines = self.lines(traced, refusal(stage="MAIL", recipient="", helo="ylmf-pc"))
        self.assertIn("    from      <spam@evil.example>", lines)
        self.assertIn("    client    203.0.113.7, HELO ylmf-pc, on mx1", lines)
        lines = self.lines(traced, refusal(stage="COMMAND", sender="", recipient=""))
        self.assertNotIn("from", "\n".join(lines))

    def test_refusals(self):
        lines = self.lines(traced, refusal())
        self.assertEqual(lines[0], f"{SESSION_NAME}  2026-11-22 12:00:00 UTC  rcpt refused")
        self.assertIn("    answered  550 5.7.1 No (listed)", lines)
        lines = self.lines(traced, refusal(stage="connect", session=0, reason="", symbols=[]))
        self.assertTrue(lines[0].endswith("connection refused"))
        self.assertNotIn("from", "\n".join(lines))
        lines = self.lines(traced, session(tls="", via="mx2"))
        self.assertIn("no TLS, via mx2", lines[1])

    def test_evil(self):
        """Nothing from outside reaches a terminal as it came."""
        one = symbol(EVIL, reason=EVIL, check=EVIL)
        who = session(helo=EVIL, client_name=EVIL, tls=EVIL, via=EVIL, ending=EVIL, node=EVIL)
        item = message(
            session=who, sender=EVIL, header_from=EVIL * 2, subject=EVIL, message_id=EVIL,
            reply=EVIL,
            symbols=[one], recipients=[{"recipient": EVIL, "action": "accept"}],
            attempts=[attempt(recipient=EVIL, next_hop=EVIL, reply=EVIL)],
            deeds=[{"time": 1, "deed": EVIL, "who": EVIL, "reason": EVIL, "recipients": [EVIL],
                    "copy": 0}],
            timings=[[EVIL, 1.0]],
        )  # fmt: skip
        for show in (traced, explained):
            self.assertIn(SHOWN, "\n".join(self.lines(show, item)))
        bad = refusal(
            stage=EVIL, sender=EVIL, recipient=EVIL, reply=EVIL, reason=EVIL, symbols=[one]
        )
        self.assertIn(SHOWN, "\n".join(self.lines(traced, bad)))
        whole = {
            "kind": "session",
            "id": SESSION,
            "session": who,
            "refusals": [bad],
            "messages": [item],
        }
        self.assertIn(SHOWN, "\n".join(self.lines(explained, whole)))

    def test_why_quarantined(self):
        lines = self.lines(
            explained,
            message(
                action="reject",
                score=12.5,
                symbols=[symbol(), symbol("URIBL", 8.5, reason="", check=""),
                         symbol("CLAMAV", 0.0, action="reject", reason="Eicar", check="clamav")],
                recipients=[{"recipient": "a@x.test", "action": "reject"},
                            {"recipient": "b@x.test", "action": "tag"}],
            ),
        )  # fmt: skip
        self.assertEqual(
            lines,
            [
                f"message {NAME} of 2026-11-22 12:00:00 UTC: reject",
                "    from      <alice@sender.example> to <a@x.test>, <b@x.test> (tag)",
                "    subject   The annual report",
                "           4  SPF_FAIL by spf: not allowed",
                "         8.5  URIBL",
                "           0  CLAMAV by clamav, asks for reject: Eicar",
                "        12.5  is the sum",
                "    levels    tag from 5, quarantine from 10",
                "    reject    is what CLAMAV asks for by itself",
                "    quarantine is for a sum of 10 and more",
                "    so        reject",
                "    but       tag for <b@x.test>",
                "    answered  250 2.0.0 Accepted",
                "    took      250ms: spf 10ms",
            ],
        )

    def test_why_accepted(self):
        text = "\n".join(
            self.lines(
                explained, message(symbols=[], thresholds=[], timings=[], score=0.0, reply="")
            )
        )
        self.assertIn("no check found anything", text)
        self.assertIn("none: the sum does not count", text)
        self.assertIn("nothing asks for more", text)

    def test_why_a_session(self):
        whole = {"kind": "session", "id": SESSION, "session": session()}
        lines = self.lines(
            explained,
            whole | {"refusals": [refusal(), refusal(stage="connect")], "messages": [message()]},
        )
        self.assertIn("           8  DNSBL by spf: not allowed", lines)
        self.assertIn(f"message {NAME} of 2026-11-22 12:00:00 UTC: accept", lines)
        lines = self.lines(explained, whole | {"session": None, "refusals": [], "messages": []})
        self.assertEqual(
            lines, [f"session {SESSION_NAME}", "    nothing was refused, and no message came"]
        )


class CommandTests(SynchronousTestCase):
    """The commands, against a scripted daemon."""

    def setUp(self):
        self.config = Path(self.mktemp())
        self.config.write_text("[node]\nstate = run\n")
        self.asked = []
        self.items = [named(message()), named(refusal())]
        self.done = {"found": 2, "unfinished": None}
        self.patch(asking, "ask", self.ask)

    def ask(self, path, request, arguments, *, timeout):
        self.asked.append((request, arguments))
        for item in self.items:
            yield "item", item
        yield "done", self.done

    def run_main(self, *arguments):
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        err = io.StringIO()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            code = command.main([*arguments, "-c", str(self.config)])
        return code, out.buffer.getvalue().decode(), err.getvalue()

    def test_trace(self):
        code, out, err = self.run_main("trace", "--from", "alice", "--to", "bob", "report")
        self.assertEqual((code, err), (0, ""))
        self.assertLess(out.index(NAME), out.index("rcpt refused"))
        self.assertEqual(
            self.asked,
            [("trace", {"text": "report", "sender": "alice", "recipient": "bob", "limit": 50})],
        )

    def test_all_options(self):
        options = ["--subject", "s", "--client", "192.", "--id", "X"]
        options += ["--action", "refused", "--limit", "3"]
        times = ["--since", "2026-11-29", "--until", "2026-11-29"]
        self.assertEqual(self.run_main("trace", *options, *times)[0], 0)
        asked = self.asked[0][1]
        self.assertEqual(asked.pop("until") - asked.pop("since"), 86400)
        wanted = {"subject": "s", "client": "192.", "id": "X", "action": "refused", "limit": 3}
        self.assertEqual(asked, wanted)
        more = {"helo": "pc", "symbol": "EICAR", "reply": "4711", "stage": "connect"}
        options = [word for name, value in more.items() for word in (f"--{name}", value)]
        self.assertEqual(self.run_main("trace", *options)[0], 0)
        self.assertEqual(self.asked[1][1], more | {"limit": 50})

    def test_count(self):
        self.items = []
        self.done = {"messages": {"reject": 3, "accept": 1200}, "refusals": {"RCPT": 7, EVIL: 1}}
        self.done |= {"sessions": 2, "unfinished": None}
        code, out, err = self.run_main("trace", "--count", "--client", "192.0.2.0/24")
        self.assertEqual((code, err, self.asked), (0, "", [("count", {"client": "192.0.2.0/24"})]))
        lines = ["    1,200  accept", "        3  reject", "        7  rcpt refused"]
        lines += [f"        1  {SHOWN} refused", "        2  session without mail"]
        self.assertEqual(out.splitlines(), lines)
        self.assertEqual(json.loads(self.run_main("trace", "--count", "--json")[1]), self.done)
        self.done["unfinished"] = NOON
        self.assertIn("Counted back to 2026-11-22 12:00", self.run_main("trace", "--count")[1])
        self.done = {"messages": {}, "refusals": {}, "sessions": 0, "unfinished": None}
        self.assertEqual(self.run_main("trace", "--count")[1], "Nothing was found.\n")

    def test_json(self):
        self.items = [named(message(subject=EVIL))]
        code, out, _ = self.run_main("trace", "--json")
        self.assertEqual((code, json.loads(out)), (0, self.items[0]))
        self.assertTrue(out.replace("\n", "").isprintable())
        self.assertEqual(out.count("\n"), 1)

    def test_nothing(self):
        self.items, self.done = [], {"found": 0, "unfinished": None}
        self.assertEqual(self.run_main("trace", "x"), (0, "Nothing was found.\n", ""))
        self.assertEqual(self.run_main("trace", "x", "--json"), (0, "", ""))

    def test_unfinished(self):
        self.done = {"found": 2, "unfinished": NOON - 0.4}
        _, out, err = self.run_main("trace")
        self.assertIn("--until 2026-11-22T12:00:00", out)
        _, out, err = self.run_main("trace", "--json")
        self.assertIn("Searched back to 2026-11-22 12:00:00 UTC only", err)

    def test_misspelt(self):
        code, _, err = self.run_main("trace", "--since", "soon")
        self.assertEqual(code, 64)
        self.assertIn("yesterday", err)
        self.assertEqual(self.run_main("trace", "--action", "explode")[0], 64)
        for options, said in (
            (["--from", ""], "it is empty"),
            ([" "], "it is empty"),
            (["--since", "2126-01-01"], "still to come"),
            (["--since", "10h", "--until", "12h"], "--until is before --since"),
        ):
            code, _, err = self.run_main("trace", *options)
            self.assertEqual(code, 64)
            self.assertIn(said, err)
        self.assertEqual(self.asked, [])

    def test_why(self):
        self.items, self.done = [], named(message())
        code, out, err = self.run_main("why", NAME)
        self.assertEqual((code, err), (0, ""))
        self.assertIn("is the sum", out)
        self.assertEqual(self.asked, [("why", {"id": NAME})])
        _, out, _ = self.run_main("why", NAME, "--json")
        self.assertEqual(json.loads(out), self.done)
