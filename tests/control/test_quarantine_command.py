"""Proves what ``mailsecure quarantine`` asks, prints and returns."""

import base64
import io
import json
import sys
from pathlib import Path
from unittest import mock

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control import asking, command, quarantine_command
from mailsecure.control.wire import Refusal

from .fakes import NOON
from .test_command import EVIL, SHOWN

NAME, OTHER, THIRD, LAST = (f"06B3K2M4N5P6{letter}" for letter in "QRST")


def item(**more):
    return {
        "id": NAME,
        "sender": "alice@example.org",
        "arrived": NOON - 11520,
        "octets": 10240,
        "stored": 4000,
        "client": "192.0.2.1",
        "recipients": ["bob@example.com"],
        "reason": "score of 22.5",
        "score": 22.5,
        "symbols": [["DKIM_FAIL", 2.5, "bad signature"], ["VIRUS", 20.0, "Eicar"]],
        "subject": "Invoice",
        "from": "Alice <a@example.org>",
    } | more


class QuarantineCommandTests(SynchronousTestCase):
    """Each command against a scripted daemon."""

    maxDiff = None

    def setUp(self):
        self.config = Path(self.mktemp())
        self.config.write_text("[node]\nstate = run\n")
        self.asked = []
        self.answers = [("done", {})]
        self.patch(asking, "ask", self.ask)
        self.patch(quarantine_command.time, "time", lambda: NOON)

    def ask(self, path, request, arguments, *, timeout):
        self.asked.append((request, arguments))
        for answer in self.answers:
            if isinstance(answer, Refusal):
                raise answer
            yield answer

    def run_main(self, *arguments):
        given = ["quarantine", *arguments, "-c", str(self.config)]
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        err = io.StringIO()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            code = command.main(given)
        return code, out.buffer.getvalue().decode(), err.getvalue()

    def listed(self, *items):
        done = ("done", {"messages": len(items), "recipients": len(items)})
        self.answers = [*(("item", each) for each in items), done]

    def test_list(self):
        self.listed(item(recipients=["bob@example.com", "c@example.com"]))
        self.assertEqual(
            self.run_main("list"),
            (
                0,
                "ID                 AGE    SIZE   SCORE  SENDER → RECIPIENTS\n"
                "06B3K2M4N5P6Q    3h12m     10K    22.5  "
                "<alice@example.org> → <bob@example.com> (+1)\n"
                "               Invoice\n"
                "               score of 22.5 (DKIM_FAIL VIRUS)\n"
                "1 messages, 1 recipients.\n",
                "",
            ),
        )
        self.assertEqual(self.asked, [("quarantine.list", {})])

    def test_list_of_little(self):
        self.listed(item(subject="", symbols=[], recipients=[], sender=""))
        lines = self.run_main("list")[1].splitlines()
        self.assertTrue(lines[1].endswith("<> → -"))
        self.assertEqual(lines[2:], ["               score of 22.5", "1 messages, 1 recipients."])
        self.listed()
        self.assertEqual(self.run_main("list"), (0, "No messages.\n", ""))
        self.assertEqual(self.run_main("list", "--json"), (0, "", ""))

    def test_filters(self):
        self.answers = [("done", {"messages": 0, "recipients": 0})]
        self.run_main(
            "list", "--recipient", "a@b", "--recipient", "@c", "--sender", "<>", "--held-for",
            "VIRUS", "--subject", "inv", "--since", "2d", "--older", "1h", "--limit", "5",
            "--oldest-first",
        )  # fmt: skip
        wanted = {
            "recipients": ("a@b", "@c"),
            "sender": "<>",
            "held_for": "VIRUS",
            "subject": "inv",
            "since": 172800.0,
            "older": 3600.0,
        }
        more = {"limit": 5, "oldest_first": True}
        self.assertEqual(self.asked[-1], ("quarantine.list", wanted | more))
        # By its other name as well, where there is nothing to give a reason for.
        self.run_main("list", "--reason", "macro")
        self.assertEqual(self.asked[-1][1], {"held_for": "macro"})
        self.run_main("delete", "--held-for", "macro", "--reason", "old", "--older", "7d")
        self.assertEqual(
            self.asked[-1][1], {"held_for": "macro", "reason": "old", "older": 604800.0}
        )

    def test_json(self):
        self.listed(item(subject="\x7f"), item())
        lines = self.run_main("list", "--json")[1].splitlines()
        self.assertEqual([json.loads(line)["subject"] for line in lines], ["\x7f", "Invoice"])

    def test_peer_text_is_escaped(self):
        evil = item(
            sender=EVIL, recipients=[EVIL], subject=EVIL, reason=EVIL, symbols=[[EVIL, 1.0, EVIL]]
        )
        self.listed(evil)
        out = self.run_main("list")[1]
        self.assertTrue(all(line.isprintable() for line in out.split("\n")), out)
        self.assertIn(f"<{SHOWN}> → <{SHOWN}>", out)
        more = {"from": EVIL, "helo": EVIL, "facts": {EVIL: EVIL}}
        self.shown(EVIL.encode(), **evil | more)
        out = self.run_main("show", NAME)[1]
        self.assertTrue(all(line.isprintable() for line in out.split("\n")), out)

    def shown(self, content, **more):
        facts = dict.fromkeys(("helo", "protocol", "session", "ret", "envid"), "")
        facts |= {"facts": {}, "eight_bit": False, "smtputf8": False}
        encoded = base64.b64encode(content).decode()
        self.answers = [("item", {"content": encoded}), ("done", item() | facts | more)]

    def test_show(self):
        self.shown(b"Subject: \xff\x1b\r\n")
        code, out, _ = self.run_main("show", NAME)
        self.assertEqual(code, 0)
        for text in (
            f"message   {NAME}\nsender    <alice@example.org>\n",
            "10240 octets, 4000 on disk\n",
            "from      Alice <a@example.org>\nsubject   Invoice\n"
            "held      score of 22.5, score 22.5\nfor       <bob@example.com>\n",
            "DKIM_FAIL",
            "bad signature",
            "\nSubject: \\udcff\\x1b\n",
        ):
            self.assertIn(text, out)
        self.assertEqual(self.asked[0], ("quarantine.show", {"id": NAME}))
        _, out, _ = self.run_main("show", NAME, "--json")
        self.assertEqual(json.loads(out)["content"], "Subject: \udcff\x1b\r\n")

    def test_show_without_symbols_or_header(self):
        self.shown(b"", symbols=[], subject="", **{"from": ""})
        out = self.run_main("show", NAME)[1]
        self.assertIn("from      -\nsubject   -\n", out)
        self.assertNotIn("SYMBOL", out)

    def test_show_full(self):
        self.shown(b"Subject: x\r\n\r\nb\x1bdy\r\n")
        self.assertEqual(self.run_main("show", NAME, "--full")[1], "Subject: x\r\n\r\nb\x1bdy\r\n")

    def test_actions(self):
        self.answers = [("done", {"messages": 2, "recipients": 3})]
        for verb, said in (("release", "released"), ("delete", "deleted")):
            code, out, _ = self.run_main(verb, "--sender", "@example.com", "--reason", "why not")
            self.assertEqual((code, out), (0, f"2 messages {said}, for 3 recipients.\n"))
            arguments = {"sender": "@example.com", "reason": "why not"}
            self.assertEqual(self.asked[-1], (f"quarantine.{verb}", arguments))
        _, out, _ = self.run_main("release", NAME, OTHER, "--recipient", "c@d", "--json")
        self.assertEqual(json.loads(out), {"messages": 4, "recipients": 6})
        self.assertEqual(
            [arguments for _, arguments in self.asked[-2:]],
            [{"id": NAME, "recipients": ("c@d",)}, {"id": OTHER, "recipients": ("c@d",)}],
        )
        self.answers = [("done", {"messages": 1, "recipients": 1})]
        self.assertEqual(
            self.run_main("delete", "--all")[1], "1 message deleted, for 1 recipient.\n"
        )
        self.assertEqual(self.asked[-1][1], {"all": True})

    def test_an_id_that_is_not_there(self):
        self.answers = [("done", {"messages": 0, "recipients": 0})]
        code, out, err = self.run_main("release", NAME)
        self.assertEqual((code, out), (66, ""))
        self.assertEqual(err, f"mailsecure: nothing in the quarantine to release for {NAME}\n")
        code, out, err = self.run_main("release", EVIL)
        self.assertEqual((code, out, len(self.asked)), (64, "", 1))
        self.assertEqual(self.run_main("release", "--sender", "nobody@x")[0], 0)

    def test_of_all_nodes(self):
        """Where something is held is told, and which node could not be asked."""
        self.answers = [
            ("item", item(node="b\x1b")),
            ("done", {"messages": 1, "recipients": 1, "away": {"c": "has \x1bgone"}}),
        ]
        code, out, err = self.run_main("list", "--node", "b")
        self.assertEqual((code, self.asked[-1]), (0, ("quarantine.list", {"node": "b"})))
        self.assertIn("score of 22.5 (DKIM_FAIL VIRUS), on b\\x1b\n1 messages", out)
        self.assertEqual(err, "Not asked: c, which has \\x1bgone.\n")
        self.shown(b"Subject: x\r\n", node="b")
        self.assertIn("\non        b\n", self.run_main("show", NAME)[1])

    def test_not_all_nodes_did_it(self):
        """What was done is told, and the exit code says that it was not all."""
        self.answers = [
            ("done", {"messages": 2, "recipients": 3, "away": {"c": "does not answer"}})
        ]
        code, out, err = self.run_main("release", "--sender", "a@example.org")
        self.assertEqual((code, out), (75, "2 messages released, for 3 recipients.\n"))
        self.assertEqual(
            err,
            "mailsecure: not all nodes have done it\n  c does not answer: do it again there.\n",
        )
        self.answers = [("done", {"messages": 0, "recipients": 0, "away": {"c": "has gone"}})]
        code, _, err = self.run_main("delete", NAME)
        self.assertEqual(code, 66)
        self.assertIn("\n  c has gone: it may have it.\n", err)

    def test_some_ids_that_are_not_there(self):
        """The others are done all the same, and what was not is named."""
        nothing = {"messages": 0, "recipients": 0}
        several = {NAME: {"messages": 1, "recipients": 2}, OTHER: nothing, THIRD: nothing}
        self.patch(asking, "ask", lambda path, request, arguments, **_: iter(
            [("done", several.get(arguments["id"], {"messages": 1, "recipients": 1}))]
        ))  # fmt: skip
        code, out, err = self.run_main("release", OTHER, NAME, THIRD, LAST, NAME)
        self.assertEqual((code, out), (66, "2 messages released, for 3 recipients.\n"))
        self.assertTrue(err.endswith(f"to release for {OTHER}, {THIRD}\n"), err)

    def test_nothing_is_given(self):
        """An empty variable of a script does not choose everybody's mail."""
        for options in (
            ["--sender", "", "--held-for", "VIRUS"],
            ["--recipient", ""],
            ["--recipient", "a@x.test", "--recipient", " "],
            ["", "--sender", "a@x.test"],
        ):
            code, _, err = self.run_main("delete", *options)
            self.assertEqual((code, self.asked), (64, []), options)
            self.assertIn("it is empty", err)

    def test_addresses_as_they_come(self):
        """From the log with their brackets, or in letters that are kept as A-labels."""
        self.answers = [("done", {"messages": 0, "recipients": 0})]
        for given, meant in (
            ("<a@x.test>", "a@x.test"),
            ("<>", "<>"),
            ("jörg@müller.example", "jörg@xn--mller-kva.example"),
            ("@MÜLLER.example", "@xn--mller-kva.example"),
            ("jörg", "jörg"),
            ("a@💸 !", "a@💸 !"),
        ):
            self.run_main("list", "--sender", given, "--recipient", given)
            self.assertEqual(self.asked[-1][1], {"sender": meant, "recipients": (meant,)}, given)

    def test_ages(self):
        """A duration, or a time as trace takes it."""
        self.answers = [("done", {"messages": 0, "recipients": 0})]
        self.assertEqual(self.run_main("list", "--since", "today", "--older", "now")[0], 0)
        asked = self.asked[-1][1]
        self.assertEqual((asked["since"], asked["older"]), (12 * 3600, 0.001))
        for option in ("--since", "--older"):
            code, _, err = self.run_main("list", option, "2126-01-01")
            self.assertEqual(code, 64)
            self.assertIn("'2126-01-01' is still to come", err)
            self.assertIn("yesterday", self.run_main("list", option, "soon")[2])

    def test_forward(self):
        self.answers = [("done", {"copy": "06B3K2M4N5P6R", "deleted": 0})]
        self.assertEqual(
            self.run_main("forward", NAME, "admin@example.com", "--reason", "look"),
            (0, "A copy is on its way as 06B3K2M4N5P6R.\n", ""),
        )
        arguments = {"id": NAME, "address": "admin@example.com", "reason": "look"}
        self.assertEqual(self.asked[-1], ("quarantine.forward", arguments))
        out = self.run_main("forward", NAME, "admin@example.com", "--delete")[1]
        self.assertIn("and the original deleted", out)
        out = self.run_main("forward", NAME, "admin@example.com", "--json")[1]
        self.assertEqual(json.loads(out)["copy"], "06B3K2M4N5P6R")

    def test_usage(self):
        for arguments in (["show"], ["forward", NAME], ["list", "--since", "soon"], ["list", "X"]):
            self.assertEqual(self.run_main(*arguments)[0], 64, arguments)
        for words in ([], ["list"], ["release"], ["forward"]):
            given = ["quarantine", *words, "-h"]
            self.assertEqual(CliRunner().invoke(command.cli, given).exit_code, 0)
