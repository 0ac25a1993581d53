"""Proves that the state directory is ours alone, or the daemon does not start."""

import os
import pwd
import stat
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsecure.daemon.privileges import Identity
from mailsecure.daemon.state import prepare_state
from mailsecure.errors import LocalFault

OURSELVES = Identity("whoever", os.geteuid(), os.getegid())


class StateTests(SynchronousTestCase):
    """:func:`prepare_state` on a real file system."""

    def setUp(self):
        self.above = Path(self.mktemp())
        self.above.mkdir(parents=True)
        self.directory = self.above / "state"

    def mode(self):
        return stat.S_IMODE(self.directory.stat().st_mode)

    def refused(self, identity=None):
        """Return why the directory is refused."""
        return str(self.assertRaises(LocalFault, prepare_state, self.directory, identity))

    def test_made(self):
        """Where it is missing it is made, for its owner alone, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        prepare_state(self.directory, None)
        self.assertEqual(self.mode(), 0o700)
        self.assertEqual(self.directory.stat().st_uid, os.geteuid())

    def test_again(self):
        """One that is right is left as it is."""
        for identity in (None, OURSELVES):
            prepare_state(self.directory, identity)
            (self.directory / "spool").write_text("mail")
        self.assertEqual((self.directory / "spool").read_text(), "mail")

    def test_open_to_others(self):
        """One that others may look into is refused, not repaired."""
        prepare_state(self.directory, None)
        for mode in (0o750, 0o701, 0o777):
            self.directory.chmod(mode)
            self.assertIn(f"(mode {mode:o}): chmod 700 it", self.refused())
            self.assertEqual(self.mode(), mode)

    def test_of_somebody_else(self):
        """One of another user is refused, with both numbers."""
        prepare_state(self.directory, None)
        stranger = Identity("stranger", os.geteuid() + 1, os.getegid())
        said = self.refused(stranger)
        self.assertIn(f"belongs to uid {os.geteuid()}, not to {os.geteuid() + 1}", said)

    def test_no_directory(self):
        """A file in its place is refused."""
        self.directory.write_text("")
        self.assertIn("is not a directory", self.refused())

    def test_nothing_above(self):
        """The directory above is not made: it would be root's alone."""
        self.directory = self.above / "missing" / "state"
        self.assertIn(f"there is no directory {self.above / 'missing'}", self.refused())

    def test_no_place(self):
        """Where it cannot be made, the reason is told."""
        self.above.rmdir()
        self.above.write_text("a file in the way")
        self.assertRegex(self.refused(), r"cannot make \[node\] state .*: Not a directory")

    def test_a_link_to_nowhere(self):
        """A link in its place that leads nowhere is told, not followed."""
        self.directory.symlink_to("nowhere")
        self.assertIn("cannot use [node] state", self.refused())

    def test_for_the_user(self):
        """Made by root for the user of [node], it belongs to that user."""
        if os.geteuid() != 0:
            raise SkipTest("must be root")
        nobody = pwd.getpwnam("nobody")
        identity = Identity("nobody", nobody.pw_uid, nobody.pw_gid)
        prepare_state(self.directory, identity)
        facts = self.directory.stat()
        self.assertEqual((facts.st_uid, facts.st_gid), (nobody.pw_uid, nobody.pw_gid))
        self.assertEqual(self.mode(), 0o700)
        prepare_state(self.directory, identity)
        self.assertIn("belongs to uid", self.refused())
