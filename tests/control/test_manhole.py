"""Proves whom the manhole lets in, and that its host key is made once, for its user only."""

import base64
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.checkers import SSHPublicKeyChecker
from twisted.conch.ssh.keys import Key
from twisted.cred.credentials import SSHPrivateKey
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.config.model import Manhole
from mailsecure.control import manhole
from mailsecure.control.manhole import HOST_KEY, AuthorizedKeys, ManholeService, host_key
from mailsecure.errors import LocalFault

from .fakes import world


def new_key():
    return Key(Ed25519PrivateKey.generate())


class AuthorizedKeysTests(SynchronousTestCase):
    """:class:`AuthorizedKeys` in the hands of Twisted's checker."""

    def setUp(self):
        self.path = Path(self.mktemp())
        self.key = new_key()
        self.line = self.key.public().toString("openssh", comment=b"me@here")
        self.checker = SSHPublicKeyChecker(AuthorizedKeys(self.path))

    def write(self, octets, mode=0o600):
        self.path.write_bytes(octets)
        self.path.chmod(mode)

    def enters(self, key=None, signature=None):
        key = key or self.key
        data = b"what was said before"
        credentials = SSHPrivateKey(
            b"anybody", key.sshType(), key.public().blob(), data, signature or key.sign(data)
        )
        result = self.checker.requestAvatarId(credentials)
        outcome = []
        result.addBoth(outcome.append)
        if outcome == [b"anybody"]:
            return True
        outcome[0].trap(UnauthorizedLogin)
        return False

    def test_a_key_in_the_file_enters_and_no_other(self):
        self.write(b"# keys\n\n" + self.line + b"\n")
        self.assertTrue(self.enters())
        self.assertFalse(self.enters(new_key()))
        self.assertFalse(self.enters(signature=new_key().sign(b"what was said before")))

    def test_the_file_is_read_at_each_login(self):
        self.write(self.line)
        self.assertTrue(self.enters())
        self.write(b"")
        self.assertFalse(self.enters())

    def test_lines_that_are_no_plain_keys_are_passed_over(self):
        for odd in (
            b'from="192.0.2.1" ' + self.line,
            b"ssh-ed25519",
            b"ssh-ed25519 AAAA",
            b"ssh-ed25519 !!!!",
            b"sk-ssh-ed25519@openssh.com AAAA x",
            self.line[:40],
            b"\xff\xfe",
        ):
            self.write(odd + b"\n")
            self.assertFalse(self.enters(), odd)
            self.write(odd + b"\n" + self.line + b"\n")
            self.assertTrue(self.enters(), odd)

    @given(st.binary(max_size=80), st.sampled_from([b"ssh-ed25519 ", b"ssh-rsa ", b"sk-x "]))
    def test_no_line_raises(self, junk, kind):
        for line in (kind + junk, kind + base64.b64encode(junk), self.line[:12] + junk):
            self.write(line)
            for key in AuthorizedKeys(self.path).getAuthorizedKeys(b""):
                self.assertNotEqual(key, self.key)

    @given(st.integers(12, 60), st.binary(max_size=40))
    def test_no_damaged_key_raises(self, cut, junk):
        blob = base64.b64decode(self.line.split()[1])
        self.write(b"ssh-ed25519 " + base64.b64encode(blob[: cut - 12] + junk))
        for key in AuthorizedKeys(self.path).getAuthorizedKeys(b""):
            self.assertTrue(key == self.key or junk)

    def test_a_file_that_others_may_write_is_not_trusted(self):
        for mode in (0o620, 0o602):
            self.write(self.line, mode)
            self.assertFalse(self.enters())

    def test_no_file(self):
        self.assertFalse(self.enters())


class HostKeyTests(SynchronousTestCase):
    """:func:`host_key`."""

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def test_made_once(self):
        key = host_key(self.directory)
        self.assertEqual(key.sshType(), b"ssh-ed25519")
        self.assertEqual((self.directory / HOST_KEY).stat().st_mode & 0o777, 0o600)
        self.assertEqual(host_key(self.directory), key)
        self.assertEqual([each.name for each in self.directory.iterdir()], [HOST_KEY])

    def test_what_a_crash_left_is_replaced(self):
        (self.directory / HOST_KEY).with_suffix(".new").write_bytes(b"half")
        host_key(self.directory)
        self.assertEqual([each.name for each in self.directory.iterdir()], [HOST_KEY])

    def test_faults_name_the_path(self):
        path = self.directory / HOST_KEY
        path.write_bytes(b"garbage")
        fault = self.assertRaises(LocalFault, host_key, self.directory)
        self.assertIn(f"cannot use the manhole's key {path}: ", str(fault))
        missing = self.directory / "none"
        fault = self.assertRaises(LocalFault, host_key, missing)
        self.assertIn("No such file or directory", str(fault))


class ManholeServiceTests(TestCase):
    """:class:`ManholeService`; a real ssh is in tests/live."""

    def service(self, listen="tcp:0:interface=127.0.0.1", keys=Path("/dev/null")):
        directory = Path(self.mktemp())
        directory.mkdir()
        settings = Manhole(listen=listen, authorized_keys=keys)
        service = ManholeService(world(reactor), settings, directory, {"config": 1})
        self.addCleanup(service.stopService)
        return service

    async def test_off_by_default(self):
        service = self.service(listen="")
        await service.bind()
        self.assertIs(service._port, None)

    async def test_needs_keys(self):
        fault = await self.assertFailure(self.service(keys=None).bind(), LocalFault)
        self.assertIn("authorized_keys", str(fault))

    async def test_binds_once_and_says_why_not(self):
        service = self.service()
        await service.startService()
        await service.bind()
        port = service._port.getHost().port
        other = self.service(listen=f"tcp:{port}:interface=127.0.0.1")
        fault = await self.assertFailure(other.bind(), LocalFault)
        self.assertEqual(
            str(fault), f"cannot listen on tcp:{port}:interface=127.0.0.1: Address already in use"
        )

    def test_connections_are_few_and_must_log_in_soon(self):
        clock = Clock()
        directory = Path(self.mktemp())
        directory.mkdir()
        factory = manhole._Factory(None, host_key(directory), clock)
        factory.startFactory()
        wires = []
        for _ in range(5):
            protocol = factory.buildProtocol(None)
            wires.append(Wire())
            protocol.makeConnection(wires[-1])
        self.assertIs(factory.buildProtocol(None), None)
        clock.advance(60)
        self.assertTrue(all(wire.aborted for wire in wires))
        for protocol in list(factory.connections):
            protocol.connectionLost(None)
        self.assertEqual(len(factory.connections), 0)
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(Wire())
        protocol.connectionLost(None)
        self.assertEqual(clock.getDelayedCalls(), [])


class Wire:
    """As much of a transport as an SSH greeting needs."""

    aborted = False

    def write(self, octets):
        self.written = octets

    def getPeer(self):
        return "somebody"

    def abortConnection(self):
        self.aborted = True

    def setTcpNoDelay(self, enabled):
        self.nodelay = enabled
