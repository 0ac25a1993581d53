"""Proves that a key file is believed only where no other could have read it."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.keyfile import read_keys
from mailsecure.cluster.keys import KeyRing, format_keys, new_key
from mailsecure.errors import LocalFault

NEW, OLD = new_key(bytes(range(32))), new_key(bytes(range(1, 33)))


class KeyFileTests(SynchronousTestCase):
    """:func:`read_keys`."""

    def setUp(self):
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        self.path = directory / "cluster.key"

    def write(self, octets, mode=0o600):
        self.path.write_bytes(octets)
        self.path.chmod(mode)

    def refused(self):
        return str(self.assertRaises(LocalFault, read_keys, self.path))

    def test_good(self):
        """The first key signs, all are believed; stricter than 0600 is well."""
        for mode in (0o600, 0o400):
            self.write(format_keys(KeyRing((NEW, OLD))).encode(), mode)
            self.assertEqual([each.id for each in read_keys(self.path).keys], [NEW.id, OLD.id])

    def test_missing(self):
        """What is not there is told by its place."""
        said = f"[cluster] key_file: {self.path} cannot be read: No such file or directory"
        self.assertEqual(self.refused(), said)

    def test_readable_by_others(self):
        """Each bit for others is one too many, and the way out is told."""
        for bit in (0o040, 0o020, 0o010, 0o004, 0o002, 0o001):
            self.write(format_keys(KeyRing((NEW,))).encode(), 0o600 | bit)
            self.assertEqual(
                self.refused(),
                f"[cluster] key_file: {self.path} can be read by others: chmod 600 {self.path}",
            )

    def test_garbage(self):
        """What is no key is told, and never shown."""
        for octets in (b"", b"secret\n", b"\xff\xfe" * 40, b"A" * 10_000):
            self.write(octets)
            said = self.refused()
            self.assertTrue(said.startswith(f"[cluster] key_file: {self.path}: "), said)
            self.assertNotIn("secret", said)
            self.assertNotIn("AAAA", said)
