"""A Maildir gets whole messages, or nothing, in the order that survives a crash."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.config.model import Route, RouteKind
from mailsecure.delivery import maildir
from mailsecure.delivery.api import Fate
from mailsecure.delivery.maildir import delivered_to, with_lf
from mailsecure.delivery.transports import make_transport
from mailsecure.spool.api import SpoolBroken

from .support import CONTENT, MemoryBody, message, settings, world


class MaildirTests(TestCase):
    timeout = 20

    def setUp(self):
        self.path = Path(self.mktemp()).absolute() / "deep" / "box"
        route = Route(RouteKind.MAILDIR, path=str(self.path))
        self.transport = make_transport(
            world(reactor), settings(), "me:odd/name.test", route, lambda name: False
        )

    def files(self) -> list[Path]:
        return sorted((self.path / "new").iterdir())

    async def test_one_file_a_message(self):
        outcomes = await self.transport.deliver(message("a@y.test", "b@y.test"))
        self.assertEqual([one.fate for one in outcomes], [Fate.RELAYED] * 2)
        self.assertTrue(outcomes[0].final)
        self.assertEqual(outcomes[0].next_hop, f"maildir:{self.path}")
        (file,) = self.files()
        self.assertEqual(
            file.read_bytes(),
            b"Return-Path: <sender@client.test>\n"
            b"Delivered-To: a@y.test\nDelivered-To: b@y.test\n" + CONTENT.replace(b"\r", b""),
        )
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertTrue(file.name.endswith(".me\\072odd\\057name.test"))
        for part in ("", "tmp", "new", "cur"):
            self.assertEqual(stat.S_IMODE((self.path / part).stat().st_mode), 0o700)
        self.assertEqual(list((self.path / "tmp").iterdir()), [])

    async def test_names_are_unique(self):
        work = [
            Deferred.fromCoroutine(self.transport.deliver(message("a@y.test"))) for _ in range(20)
        ]
        await DeferredList(work, fireOnOneErrback=True)
        self.assertEqual(len(self.files()), 20)
        await self.transport.close()

    async def test_an_address_never_becomes_a_path(self):
        (outcome,) = await self.transport.deliver(message('"../../x"@y.test'))
        self.assertEqual(outcome.fate, Fate.RELAYED)
        self.assertEqual(len(self.files()), 1)

    async def test_loop(self):
        content = b"Delivered-To: A@y.test\r\n" + CONTENT
        outcomes = await self.transport.deliver(message("a@Y.test", "b@y.test", content=content))
        self.assertEqual(
            {one.index: str(one.reply)[:9] for one in outcomes}, {0: "554 5.4.6", 1: "250 2.0.0"}
        )
        self.assertNotIn(b"a@Y.test", self.files()[0].read_bytes())
        (outcome,) = await self.transport.deliver(message("a@y.test", content=content))
        self.assertEqual((outcome.fate, len(self.files())), (Fate.FAILED, 1))

    async def test_disk_full(self):
        await self.transport.deliver(message("a@y.test"))
        for number, enhanced in (
            (errno.ENOSPC, "4.3.1"),
            (errno.EDQUOT, "4.3.1"),
            (errno.EIO, "4.3.0"),
        ):
            with patch.object(
                maildir.os, "fsync", side_effect=OSError(number, os.strerror(number))
            ):
                (outcome,) = await self.transport.deliver(message("a@y.test"))
            self.assertEqual((outcome.fate, outcome.reply.enhanced), (Fate.DEFERRED, enhanced))
            self.assertIn(os.strerror(number), outcome.reply.text)
        self.assertEqual((len(self.files()), list((self.path / "tmp").iterdir())), (1, []))

    async def test_path_is_taken(self):
        self.path.parent.mkdir(parents=True)
        self.path.write_text("a file")
        (outcome,) = await self.transport.deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, outcome.reply.enhanced), (Fate.DEFERRED, "4.3.0"))

    async def test_file_system_without_links(self):
        fault = OSError(errno.EPERM, "no links")
        with patch.object(Path, "hardlink_to", side_effect=fault):
            (outcome,) = await self.transport.deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, len(self.files())), (Fate.RELAYED, 1))
        with patch.object(Path, "hardlink_to", side_effect=OSError(errno.EEXIST, "there")):
            (outcome,) = await self.transport.deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, len(self.files())), (Fate.DEFERRED, 1))

    async def test_unreadable_body(self):
        class Broken(MemoryBody):
            def pieces(self, size=65536):
                yield b"A: b\r\n\r\n"
                raise SpoolBroken("gone")

        mail = message("a@y.test")
        mail.body = Broken(b"")
        (outcome,) = await self.transport.deliver(mail)
        self.assertEqual((outcome.fate, outcome.reply.enhanced), (Fate.DEFERRED, "4.3.0"))

    async def test_order_of_the_writes(self):
        await self.transport.deliver(message("a@y.test"))
        calls: list[str] = []
        real_sync, real_link = os.fsync, Path.hardlink_to

        def sync(descriptor):
            kind = os.fstat(descriptor).st_mode
            calls.append("directory" if stat.S_ISDIR(kind) else "file")
            real_sync(descriptor)

        def link(path, target):
            calls.append("link")
            real_link(path, target)

        with patch.object(maildir.os, "fsync", sync), patch.object(Path, "hardlink_to", link):
            await self.transport.deliver(message("a@y.test"))
        self.assertEqual(calls, ["file", "link", "directory"])


class OctetTests(SynchronousTestCase):
    @given(st.lists(st.sampled_from([b"\r\n", b"a", b"\r", b"\n", b".", b""]), max_size=12))
    def test_line_ends_in_any_chunking(self, pieces):
        whole = b"".join(pieces)
        self.assertEqual(b"".join(with_lf(pieces)), whole.replace(b"\r\n", b"\n"))

    def test_delivered_to(self):
        header = b"X: y\r\ndelivered-to:\r\n <A@b>\r\nDelivered-To: c@d \r\n"
        self.assertEqual(delivered_to([header[:9], header[9:]]), {"a@b", "c@d"})
        self.assertEqual(delivered_to([b"X: y\r\n\r\nDelivered-To: a@b\r\n"]), frozenset())
        self.assertEqual(
            delivered_to([b"X: y\r\n" * 200000, b"\r\nDelivered-To: a@b"]), frozenset()
        )
