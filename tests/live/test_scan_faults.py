"""What goes wrong around the judging of mail: bombs, scanners in trouble, crashes.

Nothing is lost, nothing bad passes, everything recovers by itself.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from typing import Any

from mailsecure.testing.messages import BOMBS

from . import needs
from .harness import Gateway, LiveTestCase, until
from .load import Load, is_intact
from .names import Names
from .scanners import Clamd, Rspamd, Scanner, Spamd
from .sinks import Sink, Taken
from .test_scan import EICAR, GTUBE, ScanTestCase, attached, plain
from .wire import Wire, send_message

#: How many times the daemon is killed.
ROUNDS = int(os.environ.get("MAILSECURE_CRASH_ROUNDS", "200")) // 5
#: Longest time for one message, in seconds (worker_time, and what goes with it).
BOMB_TIME = 12.0


class Bombs(ScanTestCase):
    """attacks.md: bounded time and memory, off the reactor's thread, never a pass."""

    def test_every_bomb(self) -> None:
        names = Names({})
        self.addCleanup(names.close)
        node = self.scanning(
            "checks = authentication attachments markers urls",
            smtp="max_line_length = 20M",
            delivery=f"dns_servers = {names.server}",
        )
        slowest = 0.0
        for name, make in BOMBS.items():
            content = make().replace(b"\r\n.", b"\r\n..").removesuffix(b"\r\n") + b"\r\n"
            began = time.monotonic()
            with Wire(node.address, timeout=60) as wire:
                wire.hello()
                reply = wire.transact(content, "a@example.com")[-1]
            took = time.monotonic() - began
            slowest = max(slowest, took)
            self.assertIn(reply[:3], ("250", "554", "552", "500"), f"{name}: {reply}")
            self.assertLess(took, BOMB_TIME, name)
            self.assertTrue(node.greets(), f"{name}: nobody is greeted any more")
        node.sessions_over()
        status = node.status()
        self.assertLess(status["memory"], 512 << 20)
        # A good message is taken at once, and is not held.
        reply = send_message(node.address, plain("good"), "a@example.com")
        self.assertEqual(reply[:3], "250", reply)
        until(
            lambda: any(b"Subject: good" in each.content for each in self.sink.taken()),
            "the good one",
            10,
            node.tail,
        )
        self.assertEqual(node.matching("Unhandled|Traceback"), [])


class Engines(ScanTestCase):
    """Real scanners, asked by the daemon."""

    def asking(self, engine: str, settings: str, scan: str = "") -> Gateway:
        """Start a gateway that asks one engine and nothing else."""
        return self.scanning(
            f"checks =\nengines = {engine}\n{scan}",
            **{engine: f"{settings}\ntimeout = 2s\nfailures = 2\npause = 1s"},
        )

    def trouble(self, node: Gateway, scanner: Scanner, bad: bytes) -> None:
        """Have the scanner refused, hung, and back: 451 in time, then judged again."""
        for begin, end in ((scanner.kill, scanner.restart), (scanner.stop, scanner.cont)):
            begin()
            for _ in range(4):
                began = time.monotonic()
                reply = send_message(node.address, bad, "a@example.com")
                self.assertRegex(reply, r"^451 4\.7\.1 ", node.tail())
                self.assertLess(time.monotonic() - began, 6)
            (engine,) = node.status()["scanning"]["engines"]
            self.assertNotEqual(engine["state"], "well", engine)
            end()
            until(
                lambda: node.status()["scanning"]["engines"][0]["state"] == "well",
                "the scanner is well again without any mail",
                20,
                node.tail,
            )
            reply = send_message(node.address, bad, "a@example.com")
            self.assertEqual(reply[:3], "554", reply)
        good = send_message(node.address, plain("good"), "a@example.com")
        self.assertEqual(good[:3], "250", good)
        node.settle()
        self.assertEqual(len(self.sink.taken()), 1)

    @needs(programs=("clamd",))
    def test_clamd(self) -> None:
        with Clamd() as scanner:
            node = self.asking("clamav", f"address = {scanner.address}")
            self.trouble(node, scanner, attached("virus", "a.txt", EICAR))

    @needs(root=True, programs=("rspamd",))
    def test_rspamd(self) -> None:
        with Rspamd() as scanner:
            node = self.asking("rspamd", f"url = {scanner.url}")
            self.trouble(node, scanner, plain("spam", b"x\r\n" + GTUBE + b"\r\n"))
            bad = b"X-Bad: yes\r\n" + plain("edited")
            self.assertEqual(send_message(node.address, bad, "a@example.com")[:3], "250")
            node.settle()
            head = self.sink.taken()[-1].content.partition(b"\r\n\r\n")[0]
            self.assertIn(b"\r\nX-Found: bad", b"\r\n" + head)
            self.assertIn(b"X-Spam-Flag: YES", head)
            self.assertNotIn(b"X-Bad", head)

    @needs(programs=("spamd",))
    def test_spamd(self) -> None:
        with Spamd() as scanner:
            node = self.asking("spamassassin", f"address = {scanner.address}")
            self.trouble(node, scanner, plain("spam", b"x\r\n" + GTUBE + b"\r\n"))

    @needs(programs=("clamd",))
    def test_let_pass(self) -> None:
        with Clamd() as scanner:
            node = self.asking("clamav", f"address = {scanner.address}\non_failure = accept")
            scanner.kill()
            reply = send_message(node.address, plain("unscanned"), "a@example.com")
            self.assertEqual(reply[:3], "250", reply)
            node.settle()
            self.assertIn(b"X-Scan-Failed: CLAMAV_FAILED", self.sink.taken()[0].content)

    @needs(root=True, programs=("clamd", "rspamd"))
    def test_several_at_once(self) -> None:
        with Clamd() as clamd, Rspamd() as rspamd:
            node = self.scanning(
                "checks = attachments\nengines = clamav rspamd",
                clamav=f"address = {clamd.tcp}",
                rspamd=f"url = {rspamd.url}",
            )
            bad = b"X-Bad: yes\r\n" + attached("both", "a.txt", EICAR)
            reply = send_message(node.address, bad, "a@example.com")
            name = re.fullmatch(r"554 .*\((\w{13})\)", reply)
            assert name is not None, reply
            line = node.line(f"{name[1]}: verdict=").string
            for symbol in ("CLAMAV", "RSPAMD"):
                self.assertIn(symbol, line)


class Crashes(LiveTestCase):
    """kill -9 with half of the mail going to the quarantine."""

    def test_nothing_is_lost_between_accept_and_quarantine(self) -> None:
        sink = Sink()
        self.addCleanup(sink.close)
        broken: list[bytes] = []

        def check(taken: Taken) -> None:
            if not is_intact(taken.content):
                broken.append(taken.raw[:300])
            taken.raw = taken.raw[:800]

        sink.before_final = check
        node = self.gateway(
            domains=f"example.com = {sink.route}",
            scan="checks = markers",
            records="enabled = yes",
            **{"profile:held": "recipients = held@example.com\nquarantine = 0"},
        )
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        loads = [
            Load(node.address, "a@example.com", clients=2),
            Load(node.address, "held@example.com", clients=2),
        ]
        for round_ in range(ROUNDS):
            if round_ % 2:
                # Other lives are over before anything was judged.
                load = chance.choice(loads)
                load.await_acknowledged(len(load.acknowledged) + 1)
            time.sleep(chance.uniform(0.1, 0.6))
            node.kill()
            node.restart()
        delivered, held = loads
        for load in loads:
            load.await_acknowledged(51)
            load.stop()
            self.assertEqual(load.surprises, [])
        arrived: set[str] = set()

        def all_there() -> bool:
            arrived.update(sink.uniques())
            return delivered.acknowledged <= arrived

        until(all_there, f"all that was answered with 250 (seed {seed})", 60, node.tail)
        node.settle(60)
        kept = self.held(node)
        self.assertEqual(held.acknowledged - kept, set(), f"seed {seed}: lost of the quarantine")
        self.assertEqual(kept & arrived, set(), "held, and delivered all the same")
        self.assertEqual(broken, [])
        # All of it is let go, and arrives whole, each once.
        done = node.cli("quarantine", "release", "--all", timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        until(lambda: held.acknowledged <= set(sink.uniques()), "what was released", 60, node.tail)
        node.settle(60)
        self.assertEqual(broken, [])
        self.assertEqual(self.held(node), set())

    def held(self, node: Gateway) -> set[str]:
        """Return the ids of what is in the quarantine (they are the subjects)."""
        done = node.cli("quarantine", "list", "--json", timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        items: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
        return {item["subject"] for item in items if "subject" in item}
