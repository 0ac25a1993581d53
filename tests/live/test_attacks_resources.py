"""Nobody can hold the daemon up, fill it up, or make it lie when something runs out.

The rows of attacks.md under Resources (scanners aside), against the real daemon with
small limits, so that minutes are seconds.
"""

from __future__ import annotations

import contextlib
import subprocess
import time

from tests.live import needs

from .disks import failing_fsync, fill, fill_inodes, small_disk
from .harness import Gateway, LiveTestCase, until
from .load import unique_message
from .sinks import Sink
from .wire import (
    ONE_SEGMENT,
    SEGMENTATIONS,
    Closed,
    Wire,
    envelope,
    message,
    play,
    raw,
    say,
    send_message,
)

MESSAGE = b"Subject: resources\r\n\r\nbody\r\n"


class SinkTestCase(LiveTestCase):
    """A test with a next hop for example.com."""

    def setUp(self) -> None:
        """Begin with a sink."""
        super().setUp()
        self.sink = Sink()
        self.addCleanup(self.sink.close)

    def started(self, smtp: str = "", **sections: str) -> Gateway:
        """Start a daemon with ``smtp`` for its section, and mail to the sink."""
        return self.gateway(smtp=smtp, domains=f"example.com = {self.sink.route}", **sections)

    def assert_serves(self, node: Gateway) -> None:
        """Show that mail is still taken and delivered."""
        unique, content = unique_message()
        reply = send_message(node.address, content, "well@example.com")
        self.assertTrue(reply.startswith("250"), reply)
        until(lambda: unique in self.sink.uniques(), "its delivery", 20, node.tail)


class Deadlines(SinkTestCase):
    """Time is bounded in every state of a session."""

    def assert_ends(self, wire: Wire, earliest: float, latest: float, drip: bytes = b"") -> str:
        """Expect the end of the session within this span; returns the last reply."""
        began = time.monotonic()
        wire.socket.settimeout(0.05)
        last = b""
        while time.monotonic() - began < latest + 5:
            if drip:
                wire.send(drip)
                time.sleep(0.2)
            try:
                data = wire.socket.recv(4096)
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
            if not data:
                break
            last = data
        lasted = time.monotonic() - began
        self.assertGreater(lasted, earliest)
        self.assertLess(lasted, latest)
        return last.decode()

    def test_silence(self) -> None:
        """A client that says nothing is told so and closed."""
        node = self.started("command_timeout = 1s")
        with Wire(node.address) as wire:
            wire.hello()
            self.assertIn("421 4.4.2", self.assert_ends(wire, 0.8, 4))

    def test_silence_in_data(self) -> None:
        """A message that does not go on is given up."""
        node = self.started("data_timeout = 1s")
        with Wire(node.address) as wire:
            wire.hello()
            for command in ("MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA"):
                wire.command(command)
            wire.send(b"Subject: half")
            self.assertIn("421 4.4.2", self.assert_ends(wire, 0.8, 4))
        node.settle()
        self.assertEqual(self.sink.taken(), [])

    def test_one_octet_at_a_time(self) -> None:
        """An octet now and then keeps no command alive for ever."""
        node = self.started(
            "command_timeout = 1s\ndata_timeout = 1s\n"
            "transaction_timeout = 2s\nsession_timeout = 3s"
        )
        with Wire(node.address) as wire:
            wire.hello()
            self.assertIn("421 4.4.2", self.assert_ends(wire, 0.8, 6, drip=b"N"))

    def test_line_after_line(self) -> None:
        """Lines just under the timeout do not make a transaction last."""
        node = self.started("command_timeout = 1s\ndata_timeout = 1s\ntransaction_timeout = 2s")
        with Wire(node.address) as wire:
            wire.hello()
            for command in ("MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA"):
                wire.command(command)
            drip = b"one more line\r\n"
            self.assertIn("421 4.4.2", self.assert_ends(wire, 1.5, 6, drip))
        node.settle()
        self.assertEqual(self.sink.taken(), [])

    def test_noop_for_ever(self) -> None:
        """A session that only lasts is ended."""
        node = self.started(
            "command_timeout = 1s\ndata_timeout = 1s\n"
            "transaction_timeout = 2s\nsession_timeout = 3s"
        )
        with Wire(node.address) as wire:
            wire.hello()
            self.assertIn("421", self.assert_ends(wire, 1.0, 7, drip=b"NOOP\r\n"))

    def test_minimum_rate(self) -> None:
        """Content that trickles is too slow."""
        node = self.started("data_timeout = 2s\nminimum_rate = 1000")
        with Wire(node.address) as wire:
            wire.hello()
            for command in ("MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA"):
                wire.command(command)
            self.assertIn("421 4.4.2", self.assert_ends(wire, 1.5, 7, drip=b"trickle\r\n"))

    def test_client_that_never_reads(self) -> None:
        """EHLO without end, answers unread: we stop to read, and hang up."""
        node = self.started("command_timeout = 2s")
        before = node.memory()
        with Wire(node.address, receive_buffer=4096) as wire:
            wire.reply()
            wire.socket.settimeout(1)
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 64 << 20:
                    sent += wire.socket.send(b"EHLO client.test\r\n" * 1000)
            self.assertLess(sent, 24 << 20)
            self.assertLess(node.memory() - before, 8 << 20)
            until(lambda: node.status()["sessions"] == 0, "the end", 25, node.tail)
        self.assert_serves(node)


class Limits(SinkTestCase):
    """What one client may have is counted."""

    def test_sessions_at_once(self) -> None:
        """The fourth session of a client with three is refused until one ends."""
        node = self.started("max_sessions_per_client = 3")
        node.sessions_over()
        wires = [Wire(node.address) for _ in range(3)]
        for wire in wires:
            self.addCleanup(wire.close)
            wire.hello()
        with Wire(node.address) as fourth:
            self.assertTrue(fourth.reply().startswith("421 4.7.0"))
            self.assertEqual(fourth.rest(), [])
        with Wire(node.address, source="127.0.0.2") as other:
            self.assertTrue(other.reply().startswith("220"))
        wires[0].command("QUIT")
        wires[0].close()
        until(node.greets, "a place for the next", 5, node.tail)

    def test_relay_networks_are_exempt(self) -> None:
        """Our own machines are not counted."""
        node = self.started("max_sessions_per_client = 2", relay="networks = 127.0.0.0/8")
        wires = [Wire(node.address) for _ in range(5)]
        for wire in wires:
            self.addCleanup(wire.close)
            self.assertTrue(wire.hello().startswith("250"))

    def test_sessions_in_all(self) -> None:
        """The daemon never serves more than it was told to."""
        node = self.started("max_sessions = 3\nmax_sessions_per_client = 3")
        node.sessions_over()
        wires = [Wire(node.address, source=f"127.0.0.{n}") for n in (2, 3, 4)]
        for wire in wires:
            self.addCleanup(wire.close)
            wire.hello()
        with Wire(node.address, source="127.0.0.5") as one_more:
            self.assertTrue(one_more.reply().startswith("421"))

    def test_session_rate(self) -> None:
        """A client that comes back and back is sent away for a while."""
        node = self.started("session_rate = 10")
        greetings = []
        for _ in range(14):
            with Wire(node.address, source="127.0.0.2") as wire:
                greetings.append(wire.reply()[:9])
        self.assertEqual(greetings[:10], ["220 mx.te"] * 10)
        self.assertIn("421 4.7.0", greetings[10:])

    def test_message_rate(self) -> None:
        """Messages a minute are counted."""
        node = self.started("message_rate = 3")
        with Wire(node.address) as wire:
            wire.hello()
            replies = [wire.transact(MESSAGE, "a@example.com") for _ in range(3)]
            self.assertEqual({each[-1][:3] for each in replies}, {"250"})
            self.assertTrue(wire.command("MAIL FROM:<>").startswith("450 4.7.1"))

    def test_recipient_rate(self) -> None:
        """Recipients a minute are counted."""
        node = self.started("recipient_rate = 5")
        with Wire(node.address) as wire:
            wire.hello()
            wire.command("MAIL FROM:<>")
            replies = [wire.command(f"RCPT TO:<a{n}@example.com>")[:9] for n in range(6)]
        self.assertEqual(replies, ["250 2.1.5"] * 5 + ["450 4.7.1"])

    def test_too_many_recipients(self) -> None:
        """Past the limit each gets 452 4.5.3, and the message goes to the others."""
        node = self.started("max_recipients = 100")
        names = [f"a{number}@example.com" for number in range(150)]
        steps = (*envelope(*names), *message(MESSAGE), say("QUIT"))
        answers = ["250"] * 102 + ["452"] * 50 + ["354", "250", "221"]
        for segmentation in SEGMENTATIONS:
            replies = play(node.address, steps, segmentation)
            self.assertEqual([each[:3] for each in replies], answers, segmentation)
            self.assertTrue(replies[110].startswith("452 4.5.3"))
            node.settle()
            taken = [name for each in self.sink.clear() for name in each.recipients]
            self.assertEqual(sorted(taken), sorted(names[:100]))

    def test_thousands_of_recipients(self) -> None:
        """Who names thousands is sent away at last."""
        node = self.started("max_recipients = 100\ntarpit = 0s")
        names = [f"a{number}@example.com" for number in range(5000)]
        replies = play(node.address, envelope(*names), ONE_SEGMENT)
        self.assertTrue(replies[-1].startswith("421"), replies[-1])
        self.assertLess(len(replies), 1000)
        node.settle()
        self.assertEqual(self.sink.clear(), [])

    def test_flood_of_noop(self) -> None:
        """NOOP without end is ended."""
        self.flood(b"NOOP\r\n")

    def test_flood_of_rset(self) -> None:
        """RSET without end is ended."""
        self.flood(b"RSET\r\n")

    def test_flood_of_ehlo(self) -> None:
        """EHLO without end is ended."""
        self.flood(b"EHLO client.test\r\n")

    def test_flood_of_vrfy(self) -> None:
        """VRFY without end is ended."""
        self.flood(b"VRFY a@example.com\r\n")

    def test_flood_of_transactions(self) -> None:
        """MAIL and RSET without end are ended."""
        self.flood(b"MAIL FROM:<>\r\nRSET\r\n")

    def flood(self, line: bytes) -> None:
        node = self.started("tarpit = 0s")
        steps = (say("EHLO client.test"), raw(line * 3000), say("QUIT"))
        replies = play(node.address, steps, ONE_SEGMENT)
        self.assertTrue(replies[-1].startswith("421"), replies[-1])
        self.assertLess(len(replies), 1500)

    def test_errors(self) -> None:
        """Errors are counted: the later ones are answered slowly, the last with 421."""
        node = self.started("max_errors = 6\ntarpit = 400ms")
        with Wire(node.address) as wire:
            wire.hello()
            waits = []
            for _ in range(5):
                began = time.monotonic()
                self.assertTrue(wire.command("RCPT TO:<v@evil.test>").startswith("503"))
                waits.append(time.monotonic() - began)
            wire.send(b"NONSENSE\r\n")
            self.assertTrue(wire.rest()[-1].startswith("421 4.7.0"))
        self.assertLess(max(waits[:3]), 0.3)
        self.assertGreater(min(waits[3:]), 0.3)

    def test_transactions_in_a_session(self) -> None:
        """A session has its share of messages."""
        node = self.started("max_transactions = 3")
        with Wire(node.address) as wire:
            wire.hello()
            for _ in range(3):
                self.assertTrue(wire.transact(MESSAGE, "a@example.com")[-1].startswith("250"))
            self.assertTrue(wire.command("MAIL FROM:<>").startswith("421"))


class Uniformity(SinkTestCase):
    """Answers tell a stranger nothing about who is here."""

    def test_verify(self) -> None:
        """VRFY is 252 for anybody, EXPN is refused."""
        node = self.started()
        with Wire(node.address) as wire:
            wire.hello()
            known = wire.command("VRFY a@example.com")
            self.assertTrue(known.startswith("252"), known)
            self.assertEqual(wire.command("VRFY nobody@elsewhere.test"), known)
            self.assertTrue(wire.command("EXPN staff").startswith("502"))

    def test_unknown_recipients(self) -> None:
        """Each unknown user is refused in the same words, whatever the server said."""
        self.sink.recipient_answers["x@example.com"] = "550 5.1.1 <x> left us in 2019"
        self.sink.recipient_answers["y@example.com"] = "553 never heard of"
        node = self.started(relay="networks =\nverify_recipients = yes")
        with Wire(node.address) as wire:
            wire.hello()
            wire.command("MAIL FROM:<s@client.test>")
            one, two = (wire.command(f"RCPT TO:<{n}@example.com>") for n in "xy")
        self.assertTrue(one.startswith("550 5.1.1"), one)
        self.assertEqual(one, two)


class Shortage(SinkTestCase):
    """What the machine lacks is never the client's loss, and never his fault."""

    def attempt(self, node: Gateway, size: int = 300) -> tuple[str, str]:
        """Try to send one message; returns its id and the answer that decided."""
        unique, content = unique_message(size)
        try:
            with Wire(node.address, timeout=20) as wire:
                hello = wire.hello()
                if not hello.startswith("250"):
                    return unique, hello
                return unique, next(
                    (each for each in wire.transact(content, "a@example.com") if each[0] in "45"),
                    "250",
                )
        except (Closed, OSError):
            return unique, "closed"

    def assert_honest(self, answers: dict[str, str], node: Gateway) -> None:
        """What was answered 250 has arrived; nothing was answered 5xx."""
        self.assertEqual([each for each in answers.values() if each.startswith("5")], [])
        good = {unique for unique, answer in answers.items() if answer == "250"}
        until(lambda: good <= set(self.sink.uniques()), "every message answered 250", 30, node.tail)
        bad = {unique for unique, answer in answers.items() if answer.startswith("4")}
        self.assertEqual(bad & set(self.sink.uniques()), set(), "refused, yet delivered")

    def recovers(self, node: Gateway, timeout: float = 15) -> None:
        """Expect a 250 again, without anybody's help."""
        until(lambda: self.attempt(node)[1] == "250", "recovery", timeout, node.tail)
        self.assert_serves(node)

    @needs(programs=("prlimit",))
    def test_no_descriptors(self) -> None:
        """Out of file descriptors: 421 or a closed door, and service once there are some."""
        node = self.started()
        node.sessions_over()
        used = node.status()["descriptors"]
        self.limit(node, "nofile", used + 6)
        wires = []
        answers: dict[str, str] = {}
        for _ in range(12):
            with contextlib.suppress(OSError):
                wires.append(Wire(node.address, timeout=3))
        for wire in wires:
            unique, content = unique_message(60_000)
            try:
                replies = wire.transact(content, "a@example.com") if wire.hello() else [""]
                answers[unique] = next((each for each in replies if each[0] in "45"), "250")
            except (Closed, OSError, AssertionError):
                answers[unique] = "closed"
        for wire in wires:
            wire.close()
        self.limit(node, "nofile", 4096)
        self.recovers(node)
        self.assert_honest(answers, node)

    @needs(programs=("prlimit",))
    def test_no_memory(self) -> None:
        """Out of memory: the session in need is refused for now, the daemon lives."""
        node = self.started("max_message_size = 200M\nmessage_memory = 200M")
        node.sessions_over()
        status = (f"/proc/{node.pid}/statm",)
        with open(status[0], encoding="ascii") as file:
            pages = int(file.read().split()[0])
        self.limit(node, "as", pages * 4096 + (6 << 20))
        answers: dict[str, str] = {}
        wires = [Wire(node.address, timeout=30) for _ in range(20)]
        pending: dict[str, Wire] = {}
        for wire in wires:
            unique, content = unique_message(900_000)
            with contextlib.suppress(Closed, OSError, AssertionError):
                wire.hello()
                for command in ("MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA"):
                    wire.command(command)
                wire.send(content)
                pending[unique] = wire
        for unique, wire in pending.items():
            try:
                wire.send(b".\r\n")
                answers[unique] = wire.reply()[:3]
            except (Closed, OSError, AssertionError):
                answers[unique] = "closed"
        for wire in wires:
            wire.close()
        self.limit(node, "as", 0)
        self.recovers(node)
        self.assert_honest(answers, node)

    def limit(self, node: Gateway, what: str, number: int) -> None:
        """Set a soft limit of the daemon; 0 takes it away."""
        value = f"{number or 'unlimited'}:"
        subprocess.run(
            ["prlimit", "--pid", str(node.pid), f"--{what}={value}"], check=True, timeout=10
        )

    @needs(root=True, programs=("mkfs.ext4", "mount"))
    def test_full_disk(self) -> None:
        """A full disk: 452 4.3.1 until there is room again; what was taken is delivered."""
        with small_disk(self.temporary_directory(), size="24M") as disk:
            node = self.started(node=f"state = {disk}/state")
            self.assert_serves(node)
            ballast = fill(disk)
            answers = dict(self.attempt(node, size) for size in (300, 30_000, 300_000) * 6)
            refusals = {each[:9] for each in answers.values() if each != "250"}
            self.assertEqual(refusals, {"452 4.3.1"}, node.tail())
            self.assertNotEqual(node.cli("status").returncode, 70)
            ballast.unlink()
            self.recovers(node)
            self.assert_honest(answers, node)
            node.stop()

    @needs(root=True, programs=("mkfs.ext4", "mount"))
    def test_min_free(self) -> None:
        """Below min_free mail is refused at MAIL, before the disk is full."""
        with small_disk(self.temporary_directory(), size="24M") as disk:
            node = self.started(node=f"state = {disk}/state", spool="min_free = 5M")
            self.assert_serves(node)
            ballast = fill(disk, leave=4 << 20)
            until(lambda: self.attempt(node)[1].startswith("452 4.3.1"), "452 4.3.1", 15, node.tail)
            ballast.unlink()
            self.recovers(node)
            node.stop()

    @needs(root=True, programs=("mount",))
    def test_no_inodes(self) -> None:
        """No inodes: large messages are refused for now, never lost."""
        with small_disk(self.temporary_directory(), kind="tmpfs", size="64M", inodes=1000) as disk:
            node = self.started(
                node=f"state = {disk}/state", spool="segment_size = 64K\ninline_size = 4K"
            )
            self.assert_serves(node)
            crowd = fill_inodes(disk)
            answers = dict(self.attempt(node, size) for size in (300, 60_000, 60_000, 60_000) * 3)
            self.assertLessEqual({each[:3] for each in answers.values()}, {"250", "452"})
            for each in crowd.iterdir():
                each.unlink()
            crowd.rmdir()
            self.recovers(node)
            self.assert_honest(answers, node)
            node.stop()

    @needs(root=True, programs=("strace",))
    def test_failing_fsync(self) -> None:
        """A disk that cannot sync: 451, never 250; well again when the disk is."""
        node = self.started()
        self.assert_serves(node)
        with failing_fsync(node.pid):
            answers = dict(self.attempt(node, size) for size in (300, 60_000, 300, 300))
            self.assertEqual({each[:1] for each in answers.values()}, {"4"}, str(answers))
        self.recovers(node, 30)
        self.assert_honest(answers, node)
        node.kill()
        node.restart()
        self.assert_honest(answers, node)

    @needs(root=True, programs=("strace",))
    def test_one_failing_fsync(self) -> None:
        """One sync that fails among good ones is one refusal, and nothing lost."""
        node = self.started()
        answers: dict[str, str] = {}
        for nth in (1, 2, 3, 4):
            with failing_fsync(node.pid, when=str(nth)):
                answers.update(self.attempt(node, size) for size in (300, 60_000, 300))
            self.recovers(node, 30)
        self.assert_honest(answers, node)
        self.assertIn("4", {each[:1] for each in answers.values()})
