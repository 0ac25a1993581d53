"""Proves that a key file is made once, kept to its owner, and changed in one go."""

import errno
import os
import pwd
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.keyfile import read_keys
from mailsecure.control import keygen
from mailsecure.control.keygen import keep_keys
from mailsecure.control.wire import Kind, Refusal


class KeygenTests(SynchronousTestCase):
    """:func:`keep_keys` on real files."""

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "cluster.key"

    def refusal(self, step, path=None):
        return self.assertRaises(Refusal, keep_keys, path or self.path, step)

    def ids(self):
        return [key.id.hex() for key in read_keys(self.path).keys]

    def mode(self):
        return self.path.stat().st_mode & 0o7777

    def alone(self):
        """Nothing half done lies about."""
        return [each.name for each in self.directory.iterdir()] == ["cluster.key"]

    def test_a_new_file(self):
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        ids, lines = keep_keys(self.path, "new")
        self.assertEqual(self.ids(), ids)
        self.assertEqual(self.mode(), 0o600)
        self.assertEqual(lines[0], "FILE written: the key of a new cluster.")
        self.assertEqual(lines[1], f"Key {ids[0]} signs.")
        self.assertIn("the user that the daemon becomes", lines[2])
        self.assertIn("scp -p FILE", lines[3])
        self.assertIn("key_file = FILE", lines[4])

    def test_no_line_holds_a_key(self):
        told = []
        for step in ("new", "add", "use", "drop"):
            told += keep_keys(self.path, step)[1]
            for row in self.path.read_text().splitlines():
                if not row.startswith("#"):
                    self.assertNotIn(row.split()[0], "\n".join(told))

    def test_every_key_is_another(self):
        other = self.directory / "other.key"
        self.assertNotEqual(keep_keys(self.path, "new")[0], keep_keys(other, "new")[0])

    def test_never_over_an_old_one(self):
        keep_keys(self.path, "new")
        kept = self.path.read_bytes()
        refusal = self.refusal("new")
        self.assertEqual(refusal.kind, Kind.USAGE)
        self.assertEqual(str(refusal), f"{self.path} exists, and is not overwritten")
        self.assertIn("--add", refusal.details[0])
        self.assertEqual(self.path.read_bytes(), kept)

    def test_nor_through_a_link(self):
        self.path.symlink_to(self.directory / "elsewhere")
        self.assertEqual(self.refusal("new").kind, Kind.USAGE)
        self.assertFalse((self.directory / "elsewhere").exists())

    def test_rotation(self):
        (old,), _ = keep_keys(self.path, "new")
        self.path.chmod(0o400)
        (first, new), lines = keep_keys(self.path, "add")
        self.assertEqual((first, self.ids()), (old, [old, new]))
        self.assertEqual(lines[1], f"Key {old} signs, {new} is believed.")
        self.assertIn("--use-new FILE", lines[-1])
        ids, lines = keep_keys(self.path, "use")
        self.assertEqual((ids, self.ids()), ([new, old], [new, old]))
        self.assertEqual(lines[1], f"Key {new} signs, {old} is believed.")
        self.assertIn("--drop-old FILE", lines[-1])
        ids, lines = keep_keys(self.path, "drop")
        self.assertEqual((ids, self.ids()), ([new], [new]))
        self.assertEqual(lines[1], f"Key {new} signs.")
        self.assertEqual(self.mode(), 0o400)
        self.assertTrue(self.alone())

    def test_steps_out_of_order(self):
        keep_keys(self.path, "new")
        for step in ("use", "drop"):
            refusal = self.refusal(step)
            self.assertEqual(refusal.kind, Kind.USAGE)
            self.assertIn("holds one key only", str(refusal))
        keep_keys(self.path, "add")
        kept = self.path.read_bytes()
        self.assertIn("holds two keys already", str(self.refusal("add")))
        self.assertEqual(self.path.read_bytes(), kept)

    def test_a_link_to_the_file_stays_one(self):
        real = self.directory / "real.key"
        keep_keys(real, "new")
        self.path.symlink_to("real.key")
        keep_keys(self.path, "add")
        self.assertTrue(self.path.is_symlink())
        self.assertEqual(len(read_keys(real).keys), 2)

    def test_what_an_earlier_attempt_left_is_no_hindrance(self):
        keep_keys(self.path, "new")
        (self.directory / "cluster.key.new").write_text("half")
        keep_keys(self.path, "add")
        self.assertEqual(len(self.ids()), 2)
        self.assertTrue(self.alone())

    def test_no_file_to_change(self):
        refusal = self.refusal("add")
        self.assertEqual(refusal.kind, Kind.ABSENT)
        self.assertEqual(str(refusal), f"cannot read {self.path}: No such file or directory")
        with mock.patch.object(Path, "open", side_effect=PermissionError(13, "Permission denied")):
            self.assertEqual(self.refusal("add").kind, Kind.FORBIDDEN)

    def test_a_file_that_is_wrong(self):
        keep_keys(self.path, "new")
        self.path.chmod(0o640)
        refusal = self.refusal("add")
        self.assertEqual(refusal.kind, Kind.CONFIG)
        self.assertIn("can be read by others", str(refusal))
        self.path.chmod(0o600)
        self.path.write_text("nonsense\n")
        self.assertEqual(self.refusal("add").kind, Kind.CONFIG)
        self.assertEqual(self.path.read_text(), "nonsense\n")

    def test_no_directory(self):
        refusal = self.refusal("new", self.directory / "none" / "cluster.key")
        self.assertEqual(refusal.kind, Kind.ABSENT)
        self.assertEqual(str(refusal), f"there is no directory {self.directory / 'none'}")

    def test_no_permission(self):
        denied = PermissionError(errno.EACCES, "Permission denied")
        with mock.patch.object(os, "open", side_effect=denied):
            refusal = self.refusal("new")
        self.assertEqual(refusal.kind, Kind.FORBIDDEN)
        self.assertEqual(str(refusal), f"cannot write {self.path}: Permission denied")

    def test_a_full_disk_leaves_nothing_and_changes_nothing(self):
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch.object(os, "fsync", side_effect=full):
            self.assertEqual(self.refusal("new").kind, Kind.DISK)
            self.assertFalse(self.path.exists())
        keep_keys(self.path, "new")
        kept = self.path.read_bytes()
        with mock.patch.object(os, "fsync", side_effect=full):
            self.assertEqual(self.refusal("add").kind, Kind.DISK)
        self.assertEqual(self.path.read_bytes(), kept)
        self.assertTrue(self.alone())

    # -- who it belongs to

    def give(self, uid, known=True):
        """Be uid ``uid`` in a world where mailsecure has the uid 4711, if it is known."""
        self.given = []
        account = mock.Mock(pw_uid=4711, pw_gid=4712)
        found = {"return_value": account} if known else {"side_effect": KeyError}
        self.patch(pwd, "getpwnam", mock.Mock(**found))
        self.patch(os, "geteuid", lambda: uid)
        self.patch(os, "fchown", lambda _, uid, gid: self.given.append((uid, gid)))

    def test_a_file_of_root_is_given_to_the_daemon(self):
        self.give(0)
        _, lines = keep_keys(self.path, "new", "mailsecure")
        self.assertEqual(self.given, [(4711, 4712)])
        self.assertIn("belongs to mailsecure,", lines[2])

    def test_where_it_cannot_be_given_it_says_so(self):
        for uid, known in ((0, False), (1000, True)):
            self.give(uid, known)
            path = self.directory / f"{uid}.key"
            _, lines = keep_keys(path, "new", "mailsecure")
            self.assertEqual(self.given, [])
            self.assertIn("must belong to mailsecure,", lines[2])

    def test_the_owner_stays(self):
        keep_keys(self.path, "new")
        there = self.path.stat()
        self.give(there.st_uid + 1)
        keep_keys(self.path, "add")
        self.assertEqual(self.given, [(there.st_uid, there.st_gid)])

    def test_an_owner_that_cannot_stay(self):
        keep_keys(self.path, "new")
        kept = self.path.read_bytes()
        self.give(self.path.stat().st_uid + 1)
        self.patch(os, "fchown", mock.Mock(side_effect=PermissionError(1, "not permitted")))
        self.assertEqual(self.refusal("add").kind, Kind.FORBIDDEN)
        self.assertEqual(self.path.read_bytes(), kept)
        self.assertTrue(self.alone())

    def test_steps_have_their_words(self):
        self.assertEqual(keygen._STEPS.keys(), keygen._NEXT.keys())
