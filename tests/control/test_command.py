"""Proves what the command line prints, with which exit code, and that it is quick."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

from click.testing import CliRunner
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.control import asking, client, command, tables
from mailsecure.control.client import ask
from mailsecure.control.wire import Kind, Refusal, encode, refused
from mailsecure.errors import ConfigProblems, Problem

from .fakes import NOON, group

NAME, OTHER = "06B3K2M4N5P6Q", "06B3K2M4N5P6R"

EVIL = "evil\x1b[31m\r\n[red]{0.__class__}%s\u202e"
SHOWN = "evil\\x1b[31m\\x0d\\x0a[red]{0.__class__}%s\\u202e"


def recipient(name, state="queued", attempts=3, due=NOON + 600, reply=""):
    return {
        "recipient": name,
        "state": state,
        "attempts": attempts,
        "due": due,
        "reply": reply,
    }


def item(*recipients, sender="alice@example.org", octets=10240):
    return {
        "id": "06B3K2M4N5P6Q",
        "sender": sender,
        "arrived": NOON - 11520,
        "octets": octets,
        "client": "192.0.2.1",
        "recipients": list(recipients),
    }


STATUS = {
    "version": "0.1.0",
    "host": "mx1.example.com",
    "pid": 812,
    "started": NOON - 90000,
    "uptime": 90000,
    "now": NOON,
    "sessions": 12,
    "counters": {"sessions_opened": 12345, "messages_accepted": 1000, "internal_errors": 1},
    "rates": {"sessions_opened": [1.25, 1.5, 2]},
    "reactor": {"late": 0.004},
    "memory": 89128960,
    "cluster": None,
    "drain": None,
    "descriptors": 40,
    "spool": {
        "well": True,
        "full": False,
        "why": "",
        "messages": 3,
        "recipients": 4,
        "octets": 30720,
        "oldest": NOON - 11520,
    },
    "quarantine": {"messages": 5, "recipients": 7, "octets": 4096, "oldest": NOON - 7200},
    "destinations": [
        {
            "domain": "example.com",
            "recipients": 4,
            "due": NOON,
            "oldest": NOON - 11520,
            "in_flight": 2,
            "next_attempt": NOON + 120,
            "last_error": "451 4.4.1 timed\nout " + EVIL,
        },
        {
            "domain": "example.net",
            "recipients": 1,
            "due": NOON,
            "oldest": None,
            "in_flight": 0,
            "next_attempt": NOON,
            "last_error": "",
        },
    ],
    "destinations_more": 7,
    "problems": [{"time": NOON, "level": "warn", "room": "queue", "text": EVIL}],
    "log": {"failures": 2, "lost": 5},
}


def printed(page, width=130):
    """Return what a page looks like, without the blanks at the end of lines."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    for each in page:
        console.print(each)
    return "\n".join(line.rstrip() for line in out.getvalue().split("\n"))


class TablesTests(SynchronousTestCase):
    """The texts, as they stand."""

    maxDiff = None

    def listed(self, *recipients, **more):
        return list(tables.listing(item(*recipients, **more), NOON))

    def test_head_and_line_are_in_step(self):
        head = tables.listing_head()
        self.assertEqual(
            head, "ID                 AGE    SIZE  TRIES       NEXT  SENDER → RECIPIENTS"
        )
        (line,) = self.listed(recipient("bob@example.com"))
        self.assertEqual(
            line,
            "06B3K2M4N5P6Q    3h12m     10K      3     in 10m  "
            "<alice@example.org> → <bob@example.com>",
        )
        self.assertEqual(head.index("SENDER"), line.index("<alice"))

    def test_several_recipients_and_a_reply(self):
        lines = self.listed(
            recipient("c@example.com", "held"),
            recipient("b@example.com", due=NOON, reply="450 4.2.0\nlater"),
            recipient("a@example.com", attempts=9),
        )
        self.assertTrue(lines[0].endswith("→ <b@example.com> (+2) [1 held]"))
        self.assertIn("      9        now  ", lines[0])
        self.assertEqual(lines[1], "               450 4.2.0 later")

    def test_all_held_and_null_reverse_path(self):
        (line,) = self.listed(recipient("a@example.com", "held"), sender="")
        self.assertTrue(line.endswith("     held  <> → <a@example.com>"), line)
        (line,) = self.listed()
        self.assertTrue(line.endswith("→ -"))

    def test_peer_text_is_escaped(self):
        lines = self.listed(recipient(EVIL, reply=EVIL), sender=EVIL)
        self.assertIn(f"<{SHOWN}> → <{SHOWN}>", lines[0])
        for line in lines:
            self.assertTrue(line.isprintable())

    def test_age(self):
        for seconds, text in ((-5, "0s"), (0.5, "0s"), (1.9, "1s"), (90061, "1d1h")):
            self.assertEqual(tables.age(seconds), text)

    def test_show(self):
        message = item(recipient("bob@example.com", reply=EVIL), recipient("c@d", "held")) | {
            "helo": EVIL,
            "protocol": "ESMTPS",
            "session": "S1",
            "facts": {"tls": "TLSv1.3"},
            "eight_bit": True,
            "smtputf8": False,
            "ret": "HDRS",
            "envid": "",
        }
        page = printed(tables.shown(message, f"Subject: {EVIL}x\r\nFrom: a@b\r\n", NOON))
        flat = SHOWN.replace("\\x0d\\x0a", " ")
        self.assertEqual(
            page,
            f"""\
message   06B3K2M4N5P6Q 8BITMIME RET=HDRS
sender    <alice@example.org>
arrived   2026-11-22 08:48:00 UTC, 3h12m ago, 10240 octets
client    192.0.2.1 (HELO {SHOWN}) ESMTPS, session S1
          tls: TLSv1.3

RECIPIENT           STATE    TRIES   NEXT     LAST REPLY
{"─" * len("<bob@example.com>   queued       3   in 10m   " + flat)}
<bob@example.com>   queued       3   in 10m   {flat}
<c@d>               held         3   -

Subject: evil\\x1b[31m
[red]{{0.__class__}}%s\\u202ex
From: a@b
""",
        )

    def test_status(self):
        page = printed(tables.status_page(STATUS))
        self.assertTrue(all(line.isprintable() for line in page.split("\n")))
        for text in (
            "mailsecure 0.1.0 on mx1.example.com, pid 812, up 1d1h\n"
            "spool well, messages: 3, recipients: 4, octets: 30K, the oldest 3h12m old\n"
            "quarantine, messages: 5, recipients: 7, on disk: 4K, the oldest 2h old\n"
            "12 sessions now, 85M of memory, 40 descriptors, "
            "the reactor late by at most 4ms in the last minute\n"
            "the log could not be written 2 times, 5 lines lost\n",
            "                      SINCE START   /s 1m   /s 5m   /s 15m\n",
            "sessions                   12,345     1.2     1.5      2.0\n",
            "messages accepted           1,000     0.0     0.0      0.0\n",
            "DESTINATION   RECIPIENTS   IN FLIGHT   OLDEST   NEXT    LAST ERROR\n",
            "example.com            4           2    3h12m   in 2m   451 4.4.1 timed out evil",
            "example.net            1           0            now\n",
            "and 7 more destinations\n",
            f"last warnings and errors\n2026-11-22 12:00:00 UTC queue: {SHOWN}\n",
        ):
            self.assertIn(text, page)

    def test_status_of_a_spool_that_is_not_well(self):
        for spool, text in (
            ({"well": False, "full": True, "why": "3M free"}, "spool full: 3M free, no answer"),
            ({"well": False, "full": False, "why": EVIL}, f"spool broken: {SHOWN}, no answer"),
        ):
            status = STATUS | {
                "spool": spool | {"queue": "no answer"},
                "quarantine": None,
                "destinations": [],
                "destinations_more": 0,
                "problems": [],
                "log": {"failures": 0, "lost": 0},
            }
            page = printed(tables.status_page(status))
            self.assertIn(text, page)
            self.assertNotIn("last warnings", page)
        empty = STATUS | {"spool": STATUS["spool"] | {"messages": 0, "oldest": None}}
        page = printed(tables.status_page(empty))
        self.assertIn("spool well, messages: 0, recipients: 4, octets: 30K\n", page)

    def test_status_of_a_node_of_a_cluster(self):
        text = f"mail: more than one Master: mx1, {EVIL}"
        cluster = {"groups": [group(), group("web", role="backup")], "alarms": [text]}
        page = printed(tables.status_page(STATUS | {"cluster": cluster}))
        self.assertIn(
            "in the last minute\n"
            f"mail: more than one Master: mx1, {SHOWN}\n"
            "mail: master since 2026-11-22 10:00:00 UTC, Master is mx1: nobody else is Master\n"
            "web: backup since 2026-11-22 10:00:00 UTC, Master is mx1: nobody else is Master\n",
            page,
        )

    def test_status_of_a_node_that_drains(self):
        for state, master, text in (
            ("draining", True, "draining: mailsecure undrain puts this node to work\n"),
            ("drained", False, "drained: mailsecure undrain puts this node to work\n"),
            (
                "drained",
                True,
                "drained, but Master: nobody else is: mailsecure undrain puts this node to work\n",
            ),
        ):
            drain = {"state": state, "master": master}
            self.assertIn(text, printed(tables.status_page(STATUS | {"drain": drain})))
        working = STATUS | {"drain": {"state": "working", "master": True}}
        self.assertNotIn("undrain", printed(tables.status_page(working)))


class CommandTests(SynchronousTestCase):
    """Each command against a scripted daemon."""

    def setUp(self):
        self.config = Path(self.mktemp())
        self.config.write_text("[node]\nstate = run\n[smtp]\nbroken = 1\n")
        self.asked = []
        self.answers = [("done", {})]
        self.patch(asking, "ask", self.ask)
        self.patch(command.time, "time", lambda: NOON)

    def ask(self, path, request, arguments, *, timeout):
        self.asked.append((path, request, arguments))
        for answer in self.answers:
            if isinstance(answer, Refusal):
                raise answer
            yield answer

    def run_main(self, *arguments, config=True):
        given = [*arguments, *(["-c", str(self.config)] if config else [])]
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        err = io.StringIO()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            code = command.main(given)
        return code, out.buffer.getvalue().decode(), err.getvalue()

    def test_the_socket_is_in_the_state_directory_of_a_broken_ini(self):
        self.answers = [("done", {"lines": ["applied"]})]
        self.assertEqual(self.run_main("reload"), (0, "applied\n", ""))
        path = self.config.absolute().parent / "run" / "control"
        self.assertEqual(self.asked, [(path, "reload", {})])
        self.config.write_text("")
        self.run_main("reload", "--json")
        self.assertEqual(self.asked[1][0], Path("/var/lib/mailsecure/control"))

    def test_reload_that_changes_nothing(self):
        self.answers = [("done", {"lines": []})]
        self.assertEqual(self.run_main("reload")[1], "Nothing changed.\n")

    def test_no_ini(self):
        self.config.unlink()
        code, out, err = self.run_main("status")
        self.assertEqual((code, out), (66, ""))
        self.assertIn(f"cannot read {self.config}: No such file or directory\n", err)
        self.assertIn("-c FILE", err)
        with mock.patch.object(Path, "read_text", side_effect=PermissionError(13, "denied")):
            self.assertEqual(self.run_main("status")[0], 77)

    def test_status(self):
        self.answers = [("done", STATUS)]
        code, out, _ = self.run_main("status")
        self.assertEqual(code, 0)
        self.assertIn("up 1d1h", out)
        code, out, _ = self.run_main("status", "--json")
        self.assertEqual(json.loads(out), json.loads(json.dumps(STATUS)))
        self.assertNotIn("\x7f", out)

    def test_list(self):
        one = item(recipient("bob@example.com", reply="450 later"))
        self.answers = [("item", one), ("item", one), ("done", {"messages": 2, "recipients": 2})]
        code, out, _ = self.run_main(
            "queue", "list", "--sender", "@example.org", "--limit", "5", "--state", "queued"
        )
        self.assertEqual(code, 0)
        self.assertEqual(len(out.splitlines()), 6)
        self.assertEqual(out.splitlines()[-1], "2 messages, 2 recipients.")
        self.assertEqual(
            self.asked[0][2], {"sender": "@example.org", "state": "queued", "limit": 5}
        )
        code, out, _ = self.run_main("queue", "list", "--json")
        self.assertEqual([json.loads(line)["id"] for line in out.splitlines()], [one["id"]] * 2)
        self.assertEqual(self.asked[1][2], {"limit": 0})

    def test_an_empty_list(self):
        self.answers = [("done", {"messages": 0, "recipients": 0})]
        self.assertEqual(self.run_main("queue", "list"), (0, "No messages.\n", ""))
        self.assertEqual(self.run_main("queue", "list", "--json"), (0, "", ""))

    def shown(self, content):
        facts = dict.fromkeys(("helo", "protocol", "session", "ret", "envid"), "")
        facts |= {"facts": {}, "eight_bit": False, "smtputf8": False}
        encoded = base64.b64encode(content).decode()
        message = item(recipient("b@c")) | facts
        self.answers = [("item", {"content": encoded}), ("done", message)]

    def test_show(self):
        self.shown(b"Subject: \xff\x1b\r\n")
        code, out, _ = self.run_main("queue", "show", "06B3K2M4N5P6Q")
        self.assertEqual(code, 0)
        self.assertIn("\nSubject: \\udcff\\x1b\n", out)
        self.assertIn("192.0.2.1", out)
        self.assertEqual(self.asked[0][2], {"id": "06B3K2M4N5P6Q", "full": False})
        _, out, _ = self.run_main("queue", "show", "06B3K2M4N5P6Q", "--json")
        self.assertEqual(json.loads(out)["content"], "Subject: \udcff\x1b\r\n")

    def test_show_full_is_the_message_itself(self):
        self.shown(b"Subject: x\r\n\r\nb\x1bdy\r\n")
        with mock.patch.object(sys, "stdout", io.TextIOWrapper(io.BytesIO())) as out:
            command.main(["queue", "show", "X", "--full", "-c", str(self.config)])
            self.assertEqual(out.buffer.getvalue(), b"Subject: x\r\n\r\nb\x1bdy\r\n")
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        with mock.patch.object(sys, "stdout", terminal):
            command.main(["queue", "show", "X", "--full", "-c", str(self.config)])
        self.assertEqual(terminal.getvalue(), "Subject: x\n\nb\\x1bdy\n")

    def test_actions(self):
        self.answers = [("done", {"recipients": 3})]
        for verb, said in (
            ("flush", "will be tried now"),
            ("hold", "held"),
            ("release", "released"),
            ("delete", "deleted"),
            ("bounce", "returned"),
        ):
            code, out, _ = self.run_main("queue", verb, "--destination", "example.com")
            self.assertEqual((code, out), (0, f"3 recipients {said}.\n"))
            self.assertEqual(self.asked[-1][1:], (f"queue.{verb}", {"destination": "example.com"}))
        _, out, _ = self.run_main("queue", "delete", NAME, OTHER, "--recipient", "c@d", "--json")
        self.assertEqual(json.loads(out), {"recipients": 6})
        self.assertEqual(
            [arguments for _, _, arguments in self.asked[-2:]],
            [{"id": NAME, "recipient": "c@d"}, {"id": OTHER, "recipient": "c@d"}],
        )
        self.run_main("queue", "bounce", "--all", "--reason", "moved")
        self.assertEqual(self.asked[-1][2], {"all": True, "reason": "moved"})

    def test_an_id_that_is_not_there(self):
        self.answers = [("done", {"recipients": 0})]
        code, out, err = self.run_main("queue", "hold", NAME, OTHER)
        self.assertEqual((code, out), (66, ""))
        self.assertEqual(err, f"mailsecure: nothing in the queue to hold for {NAME}, {OTHER}\n")
        code, out, err = self.run_main("queue", "hold", NAME, EVIL)
        self.assertEqual((code, out, len(self.asked)), (64, "", 2))
        self.assertIn("is no message id: it has 13 letters and digits", err)
        code, out, _ = self.run_main("queue", "hold", "--sender", "nobody@x")
        self.assertEqual((code, out), (0, "0 recipients held.\n"))

    def test_one_recipient(self):
        self.answers = [("done", {"recipients": 1})]
        self.assertEqual(self.run_main("queue", "hold", NAME)[1], "1 recipient held.\n")

    def test_refusals(self):
        for kind in Kind:
            self.answers = [Refusal(kind, EVIL, ("try this", EVIL))]
            code, out, err = self.run_main("queue", "list")
            self.assertEqual((code, out), (kind.exit_code, ""))
            self.assertEqual(err, f"mailsecure: {SHOWN}\n  try this\n  {SHOWN}\n")

    def test_nothing_is_given(self):
        """An empty variable of a script does not choose everybody's mail."""
        for options in (["--sender", ""], ["--recipient", " "], ["", "--sender", "a@x.test"]):
            code, _, err = self.run_main("queue", "delete", *options)
            self.assertEqual((code, self.asked), (64, []), options)
            self.assertIn("it is empty", err)

    def test_a_page_that_is_not_read_to_its_end(self):
        """As a listing: whoever reads it has enough, and that is no error."""
        full = mock.Mock(spec=io.TextIOBase, encoding="utf-8", isatty=lambda: False)
        full.fileno.return_value = os.open(os.devnull, os.O_WRONLY)
        self.addCleanup(os.close, full.fileno())
        full.write.side_effect = full.flush.side_effect = BrokenPipeError
        self.shown(b"Subject: x\r\n")
        with mock.patch.object(sys, "stdout", full):
            self.assertEqual(command.main(["queue", "show", NAME, "-c", str(self.config)]), 0)

    def test_usage(self):
        for arguments in (["nonsense"], ["status", "--nonsense"], ["queue", "show"]):
            code, out, err = self.run_main(*arguments, config=False)
            self.assertEqual((code, out), (64, ""))
            self.assertIn("Usage: mailsecure", err)
        self.assertEqual(self.run_main("queue", "list", "--limit", "0")[0], 64)

    def test_help_and_version(self):
        code, out, _ = self.run_main("--version", config=False)
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^mailsecure \d")
        for words in ([], ["queue"], ["queue", "delete"], ["check"]):
            self.assertEqual(CliRunner().invoke(command.cli, [*words, "-h"]).exit_code, 0)

    def test_interrupted(self):
        with mock.patch.object(command.cli, "main", side_effect=command.click.Abort):
            self.assertEqual(command.main([]), 130)

    def test_check(self):
        example = parse_config(
            "[node]\nhostname = mx1.example.com\nstate = /var/lib/ms\n"
            "[smtp]\nlisten_tls = tcp:465\ntls_certificate = /c.pem\n[relay]\nnetworks =\n"
            "[scan]\nchecks = markers\nengines = clamav\n[metrics]\nlisten = tcp:9125\n"
            "[domains]\nexample.com = smtp://10.0.0.5\n",
            "x.ini",
        )
        self.patch(command, "read_config", lambda path: example)
        self.assertEqual(
            self.run_main("check"),
            (
                0,
                "x.ini is fine.\n"
                "  listens on     tcp:25 (STARTTLS)\n"
                "  listens on     tcp:465 (TLS)\n"
                "  mail for       example.com → smtp://10.0.0.5:25\n"
                "  may relay      nobody\n"
                "  judges by      markers clamav\n"
                "  keeps mail in  /var/lib/ms\n"
                "  logs to        -\n"
                "  metrics        tcp:9125\n",
                "",
            ),
        )
        self.assertEqual(json.loads(self.run_main("check", "--json")[1])["listen"], ["tcp:25"])

    def test_check_of_a_node_of_a_cluster(self):
        found = parse_config(
            "[cluster]\nkey_file = /k\ninterface = lo\naddress = 192.0.2.11\n"
            "[virtual:mail]\naddresses = 192.0.2.25/24 2001:db8::25\npriority = 255\n"
            "[virtual:a-long-name]\naddresses = 192.0.2.26\ninterface = eth7\n",
            "x.ini",
        )
        self.patch(command, "read_config", lambda path: found)
        self.patch(command.socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
        code, out, err = self.run_main("check")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(
            out.partition("  cluster ")[1] + out.partition("  cluster ")[2],
            "  cluster        both at lo 192.0.2.11, says hello to 239.255.25.25:5025\n"
            "  cluster key    /k\n"
            "  virtual mail   192.0.2.25/24 2001:db8::25/128 on lo, priority 255, "
            "starts as master\n"
            "  virtual a-long-name 192.0.2.26/32 on eth7, priority 100, starts as backup\n"
            "  but            there is no interface eth7 on this machine now\n",
        )
        told = json.loads(self.run_main("check", "--json")[1])
        self.assertEqual(told["cluster"]["link_port"], 5025)
        self.assertEqual(
            told["virtual"]["mail"]["addresses"], ["192.0.2.25/24", "2001:db8::25/128"]
        )
        self.assertEqual(told["interfaces_missing"], ["eth7"])

    def test_check_of_a_node_that_only_works(self):
        found = parse_config(
            "[cluster]\nkey_file = /k\naddress = 192.0.2.13\nrole = scanner\n"
            "unicast_peers = 192.0.2.11 192.0.2.12:99",
            "x.ini",
        )
        self.patch(command, "read_config", lambda path: found)
        self.assertIn(
            "  cluster        scanner at 192.0.2.13, says hello to 192.0.2.11, 192.0.2.12:99\n",
            self.run_main("check")[1],
        )

    def test_check_tells_all_problems(self):
        problems = [
            Problem("x.ini", 3, "smtp", "listn", "is unknown", "listen?"),
            Problem("x.ini", 9, "smtp", "banner", f"odd {EVIL}"),
        ]

        def wrong(path):
            raise ConfigProblems(problems)

        self.patch(command, "read_config", wrong)
        code, out, err = self.run_main("check")
        self.assertEqual((code, out), (78, ""))
        self.assertEqual(
            err,
            f"x.ini:3: [smtp] listn: is unknown (listen?)\nx.ini:9: [smtp] banner: odd {SHOWN}\n",
        )
        code, out, _ = self.run_main("check", "--json")
        self.assertEqual(code, 78)
        self.assertEqual([each["line"] for each in json.loads(out)["problems"]], [3, 9])

    def test_check_of_what_judges(self):
        """What shows only when the checks are made is told, all of it, and nothing starts."""
        found = parse_config(
            "[node]\nstate = /nowhere\n[scan]\nchecks = dnsbl nonsense greylist\n"
            "[dnsbl]\nreject = 0\n[signing:x]\ndomains = a.example\nkey = /dev/null\n",
            "x.ini",
        )
        self.patch(command, "read_config", lambda path: found)
        code, out, err = self.run_main("check")
        self.assertEqual((code, out), (78, ""))
        self.assertIn("[scan] checks: there is no check 'nonsense'", err)
        self.assertIn("[dnsbl]: reject must be more than 0", err)
        self.assertIn("[signing:x] key: /dev/null is no private key in PEM", err)
        self.assertEqual(len(err.splitlines()), 3)

    def test_check_of_a_real_file(self):
        code, _, err = self.run_main("check")
        self.assertEqual(code, 78)
        self.assertIn(f"{self.config}:4: [smtp] broken: ", err)


class ClientTests(SynchronousTestCase):
    """:func:`ask` against daemons that misbehave."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="ms")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "control"

    def daemon(self, *pieces, wait=0.0):
        """Listen; send ``pieces`` to one client after its request; close."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.path))
        listener.listen(1)

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                time.sleep(wait)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.addCleanup(thread.join)

    def refusal(self, **more):
        return self.assertRaises(Refusal, lambda: list(ask(self.path, "ping", {}, **more)))

    def test_nobody_there(self):
        refusal = self.refusal()
        self.assertEqual(refusal.kind, Kind.UNAVAILABLE)
        self.assertIn(str(self.path), str(refusal))
        self.assertIn("-c FILE", refusal.details[0])
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
        self.assertIn("is not running", str(self.refusal()))

    def test_other_reasons(self):
        for problem, kind in (
            (PermissionError(13, "Permission denied"), Kind.FORBIDDEN),
            (TimeoutError("timed out"), Kind.BUSY),
            (BlockingIOError(11, "try again"), Kind.BUSY),
            (OSError("AF_UNIX path too long"), Kind.UNAVAILABLE),
        ):
            with mock.patch.object(client.socket.socket, "connect", side_effect=problem):
                refusal = self.refusal()
            self.assertEqual(refusal.kind, kind)
            self.assertIn(str(self.path), str(refusal))

    def test_an_answer_in_pieces(self):
        line = encode({"done": {"a": 1}})
        self.daemon(encode({"item": {}}), *(line[i : i + 1] for i in range(len(line))))
        self.assertEqual(list(ask(self.path, "ping", {})), [("item", {}), ("done", {"a": 1})])

    def test_a_refusal(self):
        self.daemon(encode(refused(Refusal(Kind.USAGE, "no"))))
        self.assertEqual((self.refusal().kind), Kind.USAGE)

    def test_an_answer_that_is_cut_off(self):
        self.daemon(encode({"item": {}}))
        refusal = self.refusal()
        self.assertEqual(refusal.kind, Kind.PROTOCOL)
        self.assertIn("cut off", str(refusal))

    def test_garbage(self):
        self.daemon(b"220 smtp\r\n")
        self.assertIn("cannot be read", str(self.refusal()))

    def test_silence(self):
        self.daemon(wait=0.3)
        refusal = self.refusal(timeout=0.1)
        self.assertEqual(refusal.kind, Kind.BUSY)
        self.assertIn("within 0.1 seconds", str(refusal))


class ProcessTests(SynchronousTestCase):
    """The command as a process of its own."""

    PROGRAM = "import sys; from mailsecure.control.command import main; sys.exit(main())"

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="ms")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.config = self.directory / "x.ini"
        self.config.write_text("[node]\nstate = .\n")

    def command(self, *arguments):
        return [sys.executable, "-c", self.PROGRAM, *arguments, "-c", str(self.config)]

    def daemon(self, answer):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.directory / "control"))
        listener.listen(1)

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    for line in answer:
                        connection.sendall(line)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)

    def test_not_running(self):
        done = subprocess.run(self.command("status"), capture_output=True, timeout=20, check=False)
        self.assertEqual((done.returncode, done.stdout), (69, b""))
        self.assertIn(str(self.directory / "control").encode(), done.stderr)

    def test_neither_twisted_nor_the_reactor_is_imported(self):
        program = (
            "import sys, mailsecure.control.command;"
            "print([m for m in sys.modules if m.split('.')[0] in"
            " ('twisted', 'zope', 'cryptography', 'OpenSSL', 'sqlite3')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, timeout=20, check=True
        )
        self.assertEqual(done.stdout, b"[]\n")

    def test_a_long_listing_streams_in_flat_memory_and_a_closed_pipe_is_quiet(self):
        line = encode({"item": item(recipient("bob@example.com", reply="450 later"))})
        last = encode({"done": {"messages": 100_000, "recipients": 100_000}})
        self.daemon([*([line * 100] * 1000), last])
        with subprocess.Popen(
            self.command("queue", "list"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            count = 0
            row = b""
            while following := process.stdout.readline():
                row = following
                count += 1
                if count == 100_000:
                    usage = Path(f"/proc/{process.pid}/status").read_text()
            self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.returncode, 0)
        self.assertEqual((count, row), (200_002, b"100000 messages, 100000 recipients.\n"))
        peak = next(each for each in usage.splitlines() if each.startswith("VmHWM"))
        self.assertLess(int(peak.split()[1]), 80_000)

    def test_head_is_enough(self):
        line = encode({"item": item(recipient("bob@example.com"))})
        self.daemon([line * 100] * 1000)
        with subprocess.Popen(
            self.command("queue", "list"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.returncode, 0)
