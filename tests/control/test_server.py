"""Proves that the control socket serves whom it should, in bounds, on real Unix sockets."""

import base64
import contextlib
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailsecure.control import requests, server, showing
from mailsecure.control.client import ask
from mailsecure.control.server import ControlService
from mailsecure.control.wire import Kind, Refusal
from mailsecure.errors import ConfigProblems, LocalFault, Problem
from mailsecure.spool.api import Filter, RecipientState, SpoolBroken
from mailsecure.spool.ids import id_name

from .fakes import FIRST, NOON, FakeBody, FakeScheduler, FakeSpool, desk, listing, world


class Served(TestCase):
    """A service on a socket in a short temporary directory."""

    timeout = 20

    def setUp(self):
        self.directory = Path(tempfile.mkdtemp(prefix="ms"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "control"
        self.spool = FakeSpool(listing(number) for number in range(3))
        self.scheduler = FakeScheduler()

    async def serve(self, **parts):
        parts = {"spool": self.spool, "scheduler": self.scheduler, **parts}
        service = ControlService(self.path, world(reactor), desk(**parts))
        await service.bind()
        self.addCleanup(service.stopService)
        return service

    def ask(self, request, timeout=5.0, **arguments):
        def whole():
            return list(ask(self.path, request, arguments, timeout=timeout))

        return deferToThread(whole)

    async def done(self, request, **arguments):
        (word, value) = (await self.ask(request, **arguments))[-1]
        self.assertEqual(word, "done")
        return value

    async def refusal(self, request, **arguments):
        return await self.assertFailure(self.ask(request, **arguments), Refusal)

    def raw(self, octets):
        """Send octets as they are; return all that comes until the end."""

        def exchange():
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(self.path))
                connection.sendall(octets)
                answer = b""
                # A reset comes after what was written, when not all was read.
                with contextlib.suppress(ConnectionResetError):
                    while piece := connection.recv(65536):
                        answer += piece
                return answer

        return deferToThread(exchange)


class ListeningTests(Served):
    """The socket itself."""

    async def test_mode_and_end(self):
        service = await self.serve()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        await service.startService()
        await service.stopService()
        self.assertFalse(self.path.exists())
        await service.stopService()

    async def test_a_stale_socket_is_replaced(self):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
        await self.serve()
        self.assertIn("pid", await self.done("ping"))

    async def fault(self):
        service = ControlService(self.path, world(reactor), desk())
        return str(await self.assertFailure(service.bind(), LocalFault))

    async def test_a_living_one_is_not(self):
        await self.serve()
        self.assertIn("another mailsecure runs", await self.fault())
        self.assertIn("pid", await self.done("ping"))

    async def test_nor_is_a_file(self):
        self.path.write_text("precious")
        self.assertIn("no socket stands there", await self.fault())
        self.assertEqual(self.path.read_text(), "precious")

    async def test_a_path_that_is_too_long(self):
        self.path = self.directory / ("x" * 100)
        self.assertIn("may have 107 octets; choose a shorter [node] state", await self.fault())

    async def test_no_such_directory(self):
        self.path = self.directory / "none" / "control"
        self.assertEqual(
            await self.fault(), f"cannot listen on {self.path}: No such file or directory"
        )

    async def test_a_directory_that_is_none(self):
        self.path = Path("/dev/null/control")
        self.assertIn("Not a directory", await self.fault())

    async def test_a_socket_that_somebody_removed(self):
        service = await self.serve()
        self.path.unlink()
        await service.stopService()
        self.assertFalse(self.path.exists())


class ConversationTests(Served):
    """Who is served, and within which bounds."""

    async def test_other_users_are_refused(self):
        await self.serve()
        with mock.patch.object(server, "_peer_uid", return_value=4711):
            refusal = await self.refusal("ping")
        self.assertEqual(refusal.kind, Kind.FORBIDDEN)

    async def test_garbage(self):
        await self.serve()
        for octets in (b"GET / HTTP/1.1\r\n\r\n", b"\n", b"\xff" * 70_000, b"{}\n{}\n"):
            lines = (await self.raw(octets)).splitlines()
            self.assertEqual(len(lines), 1)
            self.assertEqual(json.loads(lines[0])["refused"]["kind"], "protocol")

    async def test_a_request_in_single_octets(self):
        await self.serve()

        def slowly():
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.path))
                for octet in b'{"version": 1, "request": "ping"}\n':
                    connection.send(bytes([octet]))
                return connection.recv(65536)

        self.assertIn(b'"done"', await deferToThread(slowly))

    async def test_silence_is_ended(self):
        self.patch(server, "_REQUEST_TIMEOUT", 0.05)
        await self.serve()
        self.assertEqual(await self.raw(b""), b"")

    async def test_too_many(self):
        self.patch(server, "_MAX_CONNECTIONS", 2)
        await self.serve()
        idle = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for each in idle:
            self.addCleanup(each.close)
            each.connect(str(self.path))
        await deferLater(reactor, 0.05)
        self.assertEqual((await self.refusal("ping")).kind, Kind.BUSY)
        idle[0].close()
        await deferLater(reactor, 0.05)
        self.assertIn("pid", await self.done("ping"))

    async def test_who_does_not_read_is_waited_for_then_dropped(self):
        self.patch(server, "_READ_TIMEOUT", 1.0)
        self.spool.listings = [listing(number, 20) for number in range(3000)]
        service = await self.serve()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.path))
            connection.send(b'{"version": 1, "request": "queue.list"}\n')
            pages = -1
            while pages != self.spool.finds or not pages:
                pages = self.spool.finds
                await deferLater(reactor, 0.2)
            self.assertLess(pages, 29)
            self.assertEqual(len(service._conversations), 1)
            await deferLater(reactor, 1.2)
            self.assertEqual(self.spool.finds, pages)
            self.assertEqual(len(service._conversations), 0)

    async def test_stopping_ends_what_is_under_way(self):
        waiting = Deferred()

        async def never():
            await waiting
            return {}

        service = await self.serve(status=never)
        asked = self.ask("status")
        await deferLater(reactor, 0.05)
        await service.stopService()
        self.assertEqual((await self.assertFailure(asked, Refusal)).kind, Kind.PROTOCOL)
        waiting.callback(None)

    async def test_faults_have_kinds(self):
        async def broken():
            raise ZeroDivisionError

        async def wrong():
            raise ConfigProblems([Problem("x.ini", 3, "smtp", "listn", "unknown", "listen?")])

        await self.serve(status=broken, reload=wrong)
        refusal = await self.refusal("status")
        self.assertEqual(refusal.kind, Kind.INTERNAL)
        self.assertNotIn("Zero", str(refusal))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        refusal = await self.refusal("reload")
        self.assertEqual(refusal.kind, Kind.CONFIG)
        self.assertEqual(refusal.details, ("x.ini:3: [smtp] listn: unknown (listen?)",))
        self.spool.fault = SpoolBroken("the disk is gone")
        refusal = await self.refusal("queue.list")
        self.assertEqual((refusal.kind, str(refusal)), (Kind.DISK, "the disk is gone"))


class FakeDrain:
    """Notes what it is told."""

    def __init__(self):
        self.said = []
        self.state = "working"
        self.fault = None

    def report(self):
        return {"state": self.state}

    def begin(self, seconds):
        if self.fault is not None:
            raise self.fault
        self.said.append(seconds)
        self.state = "draining"

    def end(self):
        self.said.append("end")
        was, self.state = self.state, "working"
        return was != "working"


class RequestsTests(Served):
    """What each request does."""

    async def test_status_and_reload(self):
        await self.serve()
        self.assertEqual(await self.done("status"), {"well": True})
        self.assertEqual(len((await self.done("reload"))["lines"]), 2)

    async def test_drain(self):
        """Each request is one word to it; what it says of itself is the answer."""
        drain = FakeDrain()
        await self.serve(drain=drain)
        self.assertEqual(await self.done("drain", seconds=60), {"state": "draining"})
        self.assertEqual(await self.done("draining"), {"state": "draining"})
        self.assertEqual(await self.done("undrain"), {"state": "working", "drained": True})
        self.assertEqual(await self.done("undrain"), {"state": "working", "drained": False})
        self.assertEqual(drain.said, [60.0, "end", "end"])
        drain.fault = LocalFault("nobody else could be Master of mail")
        refusal = await self.refusal("drain", seconds=0)
        self.assertEqual((refusal.kind, str(refusal)), (Kind.UNAVAILABLE, str(drain.fault)))

    async def test_drain_for_how_long(self):
        """Only a time that is one."""
        drain = FakeDrain()
        await self.serve(drain=drain)
        for seconds in (-1, 86401, "60", True, None, float("nan"), float("inf")):
            refusal = await self.refusal("drain", seconds=seconds)
            self.assertIs(refusal.kind, Kind.USAGE, seconds)
        self.assertIs((await self.refusal("drain", second=1)).kind, Kind.USAGE)
        self.assertEqual(drain.said, [])

    async def test_nothing_to_drain(self):
        await self.serve()
        for word, given in (("drain", {"seconds": 1}), ("undrain", {}), ("draining", {})):
            self.assertIs((await self.refusal(word, **given)).kind, Kind.UNAVAILABLE)

    async def test_list(self):
        await self.serve()
        answer = await self.ask("queue.list", sender="@example.org", limit=2)
        self.assertEqual([word for word, _ in answer], ["item", "item", "done"])
        self.assertEqual(answer[0][1]["id"], id_name(FIRST))
        self.assertEqual(
            answer[0][1]["recipients"],
            [
                {
                    "recipient": "user0@example.com",
                    "state": "queued",
                    "attempts": 0,
                    "due": NOON + 600,
                    "reply": "",
                }
            ],
        )
        self.assertEqual(answer[-1][1], {"messages": 2, "recipients": 2})

    async def test_a_long_list_comes_in_pages(self):
        self.spool.listings = [listing(number) for number in range(1000)]
        await self.serve()
        answer = await self.ask("queue.list")
        self.assertEqual(answer[-1][1]["messages"], 1000)
        names = [value["id"] for _, value in answer[:-1]]
        self.assertEqual(names, sorted(set(names)))
        self.assertEqual(self.spool.finds, 11)

    async def test_actions(self):
        await self.serve()
        name = id_name(FIRST)
        for verb in ("hold", "delete", "release"):
            done = await self.done(f"queue.{verb}", id=name.lower())
            self.assertEqual(done, {"recipients": 1})
        self.assertEqual(
            self.spool.calls,
            [
                ("hold", Filter(id=FIRST)),
                ("delete", Filter(id=FIRST)),
                ("release", Filter(id=FIRST), NOON),
            ],
        )
        await self.done("queue.flush", all=True, state="held")
        await self.done("queue.bounce", recipient="a@b", reason="moved")
        await self.done("queue.bounce", destination="b")
        self.assertEqual(
            self.scheduler.calls,
            [
                *[("wake",)] * 3,
                ("flush", Filter(state=RecipientState.HELD)),
                ("bounce", Filter(recipient="a@b"), "moved"),
                ("bounce", Filter(destination="b"), "returned by the postmaster"),
            ],
        )

    async def test_actions_are_logged_with_who(self):
        await self.serve()
        logged = []
        self.patch(requests, "_log", mock.Mock(info=lambda f, **k: logged.append((f, k))))
        await self.done("queue.delete", sender="@example.org")
        self.assertEqual(logged[0][1]["uid"], os.geteuid())
        self.assertEqual(logged[0][1]["filter"], "sender=@example.org")
        self.assertEqual(logged[0][1]["recipients"], 3)

    async def test_bad_arguments_touch_nothing(self):
        await self.serve()
        for request, arguments in (
            ("queue.delete", {}),
            ("queue.delete", {"all": "yes"}),
            ("queue.delete", {"sendr": "a@b"}),
            ("queue.delete", {"sender": ["a@b"]}),
            ("queue.delete", {"id": "nonsense"}),
            ("queue.delete", {"id": 7}),
            ("queue.delete", {"state": "gone"}),
            ("queue.delete", {"state": []}),
            ("queue.bounce", {"all": True, "reason": "a\nb"}),
            ("queue.bounce", {"all": True, "reason": 7}),
            ("queue.list", {"limit": -1}),
            ("queue.list", {"limit": "x"}),
            ("queue.show", {}),
            ("queue.explode", {}),
            ("delete", {"all": True}),
            ("ping", {"x": 1}),
        ):
            refusal = await self.refusal(request, **arguments)
            self.assertEqual(refusal.kind, Kind.USAGE, (request, arguments))
        self.assertEqual(self.spool.calls + self.scheduler.calls, [])

    async def test_show(self):
        await self.serve()
        answer = await self.ask("queue.show", id=id_name(FIRST))
        header = b"".join(base64.b64decode(value["content"]) for _, value in answer[:-1])
        self.assertEqual(header, b"Subject: x\r\nFrom: a@b\r\n")
        shown = answer[-1][1]
        self.assertEqual(shown["sender"], "sender0@example.org")
        self.assertEqual((shown["protocol"], shown["facts"]), ("ESMTPS", {"tls": "TLSv1.3"}))
        self.assertEqual(shown["recipients"][0]["due"], NOON + 600)

    async def test_show_what_is_not_there(self):
        await self.serve()
        refusal = await self.refusal("queue.show", id=id_name(FIRST + 1))
        self.assertEqual(refusal.kind, Kind.ABSENT)

    async def test_show_full_from_a_file(self):
        content = os.urandom(1_000_000)
        self.spool.body = FakeBody(content, in_memory=False)
        await self.serve()
        answer = await self.ask("queue.show", id=id_name(FIRST), full=True)
        shown = b"".join(base64.b64decode(value["content"]) for _, value in answer[:-1])
        self.assertEqual(shown, content)

    async def test_show_finds_the_end_of_the_header_across_pieces(self):
        await self.serve()
        for size in range(showing.PIECE - 6, showing.PIECE + 3):
            header = b"X: " + b"x" * (size - 3) + b"\r\n"
            self.spool.body = FakeBody(header + b"\r\nbody\r\n\r\n")
            answer = await self.ask("queue.show", id=id_name(FIRST))
            shown = b"".join(base64.b64decode(value["content"]) for _, value in answer[:-1])
            self.assertEqual(shown, header, size)

    async def test_show_without_a_body_or_with_an_endless_header(self):
        await self.serve()
        self.spool.body = FakeBody(b"Subject: x\r\n")
        self.assertEqual(len(await self.ask("queue.show", id=id_name(FIRST))), 2)
        self.spool.body = FakeBody(b"x" * 10_000_000)
        self.assertEqual(len(await self.ask("queue.show", id=id_name(FIRST))), 2)
