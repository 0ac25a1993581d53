"""Proves that root is left for good, or the daemon does not start.

Most run with a fake system; as root, a child process really becomes nobody.
"""

import ctypes
import os
import pwd
import resource
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsecure.daemon import privileges
from mailsecure.daemon.capabilities import CAP_NET_ADMIN, CAP_NET_RAW, Sets
from mailsecure.daemon.privileges import (
    Identity,
    drop_privileges,
    identity_of,
    raise_descriptor_limit,
)
from mailsecure.errors import LocalFault

ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import os, subprocess, sys
keep = [int(each) for each in sys.argv[1:]]
from mailsecure.daemon.privileges import (
    drop_privileges, identity_of, keep_secrets, raise_descriptor_limit)
keep_secrets()
granted = raise_descriptor_limit()
drop_privileges(identity_of("nobody", ""), keep)
ways = [lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setresuid(0, 0, 0),
        lambda: os.setgid(0), lambda: os.setgroups([0])]
for way in ways:
    try:
        way()
    except PermissionError:
        continue
    print("came back")
print(os.getresuid(), os.getresgid(), 0 in os.getgroups())
with open("/proc/self/status") as stream:
    print([line.split()[1].strip("0") for line in stream
           if line.startswith(("CapEff", "CapPrm", "CapInh", "CapAmb"))])
print(subprocess.check_output(["grep", "CapEff", "/proc/self/status"], text=True).split()[1])
print(granted)
"""


ALL = (1 << 41) - 1
NETWORK = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW


class Kernel:
    """A kernel in memory: who the process is, who it may become (credentials(7)), and what
    it may do besides (capabilities(7)).
    """

    def __init__(self, refuses="", comes_back=False, permitted=ALL, leaves=0):
        self.uids = self.gids = (0, 0, 0)
        self.capabilities = Sets(permitted, permitted, leaves, 0)
        self.survives = False
        self.leaves = leaves
        self.calls = []
        self.refuses = refuses
        self.comes_back = comes_back

    def getresuid(self):
        return self.uids

    def getresgid(self):
        return self.gids

    def privileged(self, *call):
        """Note ``call``; only root may make it."""
        self.calls.append(call)
        if self.uids[1] != 0 or call[0] == self.refuses:
            raise PermissionError(1, "Operation not permitted")

    def initgroups(self, username, gid):
        self.privileged("initgroups", username, gid)

    def setresgid(self, *gids):
        self.privileged("setresgid", *gids)
        self.gids = gids

    def setresuid(self, *uids):
        self.privileged("setresuid", *uids)
        self.uids = uids
        permitted = self.capabilities.permitted if self.survives else 0
        self.capabilities = Sets(0, permitted, self.leaves, 0)

    def sets(self):
        return self.capabilities

    def survive(self):
        self.privileged("survive")
        self.survives = True

    def restrict(self, capabilities):
        self.calls.append(("restrict", capabilities))
        if self.refuses == "restrict" or capabilities & ~self.capabilities.permitted:
            raise PermissionError(1, "Operation not permitted")
        if self.refuses != "silently":
            self.capabilities = Sets(capabilities, capabilities, 0, 0)

    def setuid(self, uid):
        self.calls.append(("setuid", uid))
        if 0 not in self.uids and not self.comes_back:
            raise PermissionError(1, "Operation not permitted")
        self.uids = (uid,) * 3


class Library:
    """The C library; ``answer`` is what prctl(2) returns."""

    def __init__(self, answer=0):
        self.answer = answer
        self.calls = []

    def prctl(self, *given):
        self.calls.append(given)
        return self.answer


class IdentityTests(SynchronousTestCase):
    """Names become numbers."""

    def test_user(self):
        """Without a group it is the user's own."""
        entry = pwd.getpwuid(os.getuid())
        self.assertEqual(
            identity_of(entry.pw_name, ""), Identity(entry.pw_name, entry.pw_uid, entry.pw_gid)
        )

    def test_group(self):
        """A group that is named is taken."""
        self.assertEqual(identity_of("nobody", "root").gid, 0)

    def test_nobody_of_that_name(self):
        """Unknown names are told as they were written."""
        said = str(self.assertRaises(LocalFault, identity_of, "no-such-user", ""))
        self.assertEqual(said, "there is no user no-such-user")
        said = str(self.assertRaises(LocalFault, identity_of, "nobody", "no-such-group"))
        self.assertEqual(said, "there is no group no-such-group")


class DropTests(SynchronousTestCase):
    """:func:`drop_privileges` in a kernel in memory."""

    identity = Identity("mail", 800, 900)

    def setUp(self):
        self.library = Library()
        self.patch(ctypes, "CDLL", lambda *_, **__: self.library)

    def drop(self, keep=(), **how):
        """Become the identity; return the kernel."""
        kernel = Kernel(**how)
        drop_privileges(self.identity, keep, kernel, kernel)
        return kernel

    def refused(self, **how):
        """Return why it is not possible."""
        return str(self.assertRaises(LocalFault, self.drop, **how))

    def test_order(self):
        """Groups while root may still set them; then the user; then a look back."""
        self.assertEqual(
            self.drop().calls,
            [
                ("survive",),
                ("initgroups", "mail", 900),
                ("setresgid", 900, 900, 900),
                ("setresuid", 800, 800, 800),
                ("restrict", 0),
                ("setuid", 0),
            ],
        )

    def test_capabilities(self):
        """Those to keep are kept, for this process alone; all others are gone."""
        kernel = self.drop((CAP_NET_ADMIN, CAP_NET_RAW))
        self.assertEqual(kernel.capabilities, Sets(NETWORK, NETWORK, 0, 0))
        self.assertEqual(self.drop().capabilities, Sets(0, 0, 0, 0))

    def test_capabilities_of_less_than_root(self):
        """Root in a container has not all of them: what is not there is not kept."""
        kernel = self.drop((CAP_NET_ADMIN, CAP_NET_RAW), permitted=1 << CAP_NET_RAW)
        self.assertEqual(kernel.capabilities, Sets(1 << CAP_NET_RAW, 1 << CAP_NET_RAW, 0, 0))

    def test_inheritable(self):
        """What was inheritable is not any more."""
        self.assertEqual(self.drop(leaves=NETWORK).capabilities, Sets(0, 0, 0, 0))

    def test_capabilities_verified(self):
        """Where other capabilities are left than wanted, no mail is served."""
        said = self.refused(keep=(CAP_NET_ADMIN,), refuses="silently")
        self.assertEqual(said, "became user mail, but with other capabilities than wanted")

    def test_memory_stays_hidden(self):
        """The change of user does not open the memory to core dumps again."""
        self.drop()
        self.assertEqual(self.library.calls, [(4, 0, 0, 0, 0)])

    def test_already(self):
        """Who is the user in every respect has nothing to leave."""
        kernel = Kernel()
        kernel.uids, kernel.gids = (800,) * 3, (900,) * 3
        drop_privileges(self.identity, (CAP_NET_ADMIN,), kernel, kernel)
        self.assertEqual(kernel.calls, [])

    def test_half(self):
        """Who still has another group, or a way back, is not the user yet."""
        kernel = Kernel()
        kernel.uids = (800, 800, 0)
        self.assertRaises(LocalFault, drop_privileges, self.identity, (), kernel, kernel)

    def test_refused(self):
        """Each step that the kernel refuses is fatal."""
        for step in ("survive", "initgroups", "setresgid", "setresuid", "restrict"):
            said = self.refused(refuses=step)
            self.assertEqual(said, "cannot become user mail: Operation not permitted")

    def test_way_back(self):
        """Where root can be had again, no mail is served."""
        self.assertIn("could become root again", self.refused(comes_back=True))

    def test_root_remains_root(self):
        """[node] user = root is obeyed, without a look back."""
        kernel = Kernel()
        drop_privileges(Identity("root", 0, 900), (CAP_NET_ADMIN,), kernel, kernel)
        self.assertEqual((kernel.uids, kernel.gids), ((0,) * 3, (900,) * 3))
        self.assertNotIn("restrict", [call[0] for call in kernel.calls])
        self.assertNotIn(("setuid", 0), kernel.calls)


class ProcessTests(SynchronousTestCase):
    """What cannot be undone, so that this process only pretends."""

    def pretend(self, library):
        """Keep the calls that change the process."""
        done = []
        self.patch(os, "umask", lambda mask: done.append(("umask", mask)))
        self.patch(resource, "setrlimit", lambda *given: done.append(given))
        self.patch(ctypes, "CDLL", lambda *_, **__: library)
        return done

    def test_keep_secrets(self):
        """No file for others, no core, no debugger."""
        library = Library()
        done = self.pretend(library)
        privileges.keep_secrets()
        self.assertEqual(done, [("umask", 0o077), (resource.RLIMIT_CORE, (0, 0))])
        self.assertEqual(library.calls, [(4, 0, 0, 0, 0)])

    def test_secrets_not_kept(self):
        """Where the memory cannot be hidden, the daemon does not start."""
        self.pretend(Library(-1))
        said = str(self.assertRaises(LocalFault, privileges.keep_secrets))
        self.assertIn("cannot keep the memory out of core dumps", said)

    def test_descriptors(self):
        """The soft limit becomes the hard one, within reason, and never less."""
        for before, after in (
            ((1024, 4096), 4096),
            ((4096, 4096), 4096),
            ((1024, 1 << 30), 1 << 20),
            ((1 << 21, 1 << 30), 1 << 21),
        ):
            done = []
            self.patch(resource, "getrlimit", lambda _, limits=before: limits)
            self.patch(resource, "setrlimit", lambda *given, done=done: done.append(given))
            self.assertEqual(raise_descriptor_limit(), after)
            self.assertEqual(done, [(resource.RLIMIT_NOFILE, (after, before[1]))])

    def child(self, *keep):
        """Return what a child says that was root and became nobody."""
        if os.geteuid() != 0:
            raise SkipTest("must be root")
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *map(str, keep)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.splitlines()

    def expected(self, kept):
        """Return what it should say; ``kept`` are its capabilities."""
        nobody = pwd.getpwnam("nobody")
        user, group = nobody.pw_uid, nobody.pw_gid
        return [
            f"{(user,) * 3} {(group,) * 3} False",
            str(["", kept, kept, ""]),  # inheritable, permitted, effective, ambient
            "0" * 16,
            str(min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)),
        ]

    def test_for_good(self):
        """A child that was root becomes nobody, keeps nothing, and finds no way back."""
        self.assertEqual(self.child(), self.expected(""))

    def test_some_kept(self):
        """Another keeps two capabilities, has no way back either, and hands none on."""
        said = self.child(CAP_NET_ADMIN, CAP_NET_RAW)
        self.assertEqual(said, self.expected(f"{NETWORK:x}".strip("0")))
