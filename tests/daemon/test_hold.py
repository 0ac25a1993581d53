"""Proves that held back connections come in later, and that nobody else notices."""

import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.daemon.hold import hold_back, let_in

TIMEOUT = 5


class HoldTests(SynchronousTestCase):
    """:func:`hold_back` and :func:`let_in`, on a real socket."""

    def setUp(self):
        self.door = socket.create_server(("127.0.0.1", 0))
        self.door.settimeout(TIMEOUT)
        self.addCleanup(self.door.close)

    def connecting(self):
        """Return a socket that begins to connect."""
        client = socket.socket()
        self.addCleanup(client.close)
        client.setblocking(False)
        client.connect_ex(self.door.getsockname())
        return client

    def accepted(self):
        wire, _ = self.door.accept()
        self.addCleanup(wire.close)
        wire.settimeout(TIMEOUT)
        return wire

    def test_held_back(self):
        """Who comes meanwhile gets in a second later; who was in goes on."""
        earlier = self.connecting()
        inside = self.accepted()
        hold_back([self.door])
        self.door.settimeout(0.2)
        began = time.monotonic()
        self.connecting()
        self.assertRaises(TimeoutError, self.door.accept)
        earlier.send(b"still here")
        self.assertEqual(inside.recv(99), b"still here")
        let_in([self.door])
        self.door.settimeout(TIMEOUT)
        self.accepted()
        self.assertGreater(time.monotonic() - began, 0.5)

    def test_half_open(self):
        """Whose SYN was answered before gets in: nobody else could take the connection."""
        # The kernel waits for data before it makes the connection, so it is half open.
        self.door.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        client = self.connecting()
        self.door.settimeout(0.2)
        self.assertRaises(TimeoutError, self.door.accept)
        hold_back([self.door])
        client.send(b"EHLO x")
        self.door.settimeout(TIMEOUT)
        began = time.monotonic()
        inside = self.accepted()
        self.assertEqual(inside.recv(99), b"EHLO x")
        self.assertLess(time.monotonic() - began, 0.5)
        # It goes on, whatever the listening socket's filter is.
        client.send(b"MAIL")
        self.assertEqual(inside.recv(99), b"MAIL")

    def test_accepted_connections_are_free(self):
        """What was accepted before the hold is not filtered after it."""
        self.connecting()
        hold_back([self.door])
        let_in([self.door])
        client = self.connecting()
        inside = self.accepted()
        self.accepted().send(b"220")
        inside.send(b"220")
        client.settimeout(TIMEOUT)
        self.assertEqual(client.recv(9), b"220")

    def test_twice(self):
        """Either may be said twice, and to a socket that is closed."""
        for word in (hold_back, hold_back, let_in, let_in):
            word([self.door])
        self.connecting()
        self.accepted()
        self.door.close()
        let_in([self.door])
        hold_back([self.door])
