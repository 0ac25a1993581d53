"""Proves that OpenSSH's client enters the manhole with its key, and only with it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from mailsecure.config.model import Manhole
from mailsecure.control.manhole import ManholeService
from tests.control.fakes import world


class SshTests(TestCase):
    """A real ssh against a real port of ours."""

    timeout = 60

    def setUp(self):
        if shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
            reason = "OpenSSH's client is not installed (apt-get install openssh-client)"
            if os.environ.get("MAILSECURE_LIVE") == "require":
                self.fail(reason)
            raise SkipTest(reason)
        self.directory = Path(tempfile.mkdtemp(prefix="ms"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.keys = self.directory / "authorized_keys"
        self.key = self.new_key("mine")
        self.keys.write_bytes(self.key.with_suffix(".pub").read_bytes())
        self.keys.chmod(0o600)

    def new_key(self, name, kind="ed25519"):
        path = self.directory / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True, timeout=30
        )
        return path

    async def serve(self, **namespace):
        settings = Manhole(listen="tcp:0:interface=127.0.0.1", authorized_keys=self.keys)
        service = ManholeService(world(reactor), settings, self.directory, namespace)
        await service.bind()
        self.addCleanup(service.stopService)
        self.port = service._port.getHost().port

    def ssh(self, typed, key=None, *options):
        """Type into a prompt; return ssh's exit code and what was shown."""
        command = ["ssh", "-F", "none", "-tt", "-p", str(self.port), "-i", str(key or self.key)]
        for option in (
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "ConnectTimeout=10",
            "StrictHostKeyChecking=accept-new",
            f"UserKnownHostsFile={self.directory}/known_hosts",
            "LogLevel=ERROR",
            *options,
        ):
            command += ["-o", option]

        def run():
            done = subprocess.run(
                [*command, "root@127.0.0.1"],
                input=typed.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=30,
                check=False,
            )
            return done.returncode, done.stdout.decode("utf-8", "replace")

        return deferToThread(run)

    async def test_the_key_enters_and_the_roots_are_at_hand(self):
        found = []
        await self.serve(counters=41, note=found.append)
        _, shown = await self.ssh("note(counters + 1)\r\x04")
        self.assertEqual(found, [42])
        self.assertIn("At hand: counters, note.", shown)

    async def test_each_prompt_has_its_own_names(self):
        found = []
        await self.serve(note=found.append)
        await self.ssh("x = 1\r\x04")
        await self.ssh("note('x' in globals() or 'x' in locals())\r\x04")
        self.assertEqual(found, [False])

    async def test_another_key_does_not(self):
        await self.serve()
        code, shown = await self.ssh("1\r\x04", self.new_key("other"))
        self.assertEqual(code, 255)
        self.assertIn("Permission denied (publickey)", shown)

    async def test_a_key_taken_out_does_not_any_more(self):
        await self.serve()
        self.keys.write_bytes(b"")
        code, shown = await self.ssh("1\r\x04")
        self.assertEqual(code, 255)
        self.assertIn("Permission denied", shown)

    async def test_rsa_and_ecdsa_keys(self):
        found = []
        await self.serve(note=found.append)
        for kind in ("rsa", "ecdsa"):
            key = self.new_key(kind, kind)
            self.keys.write_bytes(key.with_suffix(".pub").read_bytes())
            await self.ssh(f"note({kind!r})\r\x04", key)
        self.assertEqual(found, ["rsa", "ecdsa"])

    async def test_commands_and_forwarding_are_refused(self):
        await self.serve()
        code, shown = await self.ssh("", None, "RemoteCommand=id")
        self.assertNotEqual(code, 0)
        self.assertNotIn("uid=", shown)
        code, shown = await self.ssh(
            "\x04", None, "ExitOnForwardFailure=yes", "RemoteForward=0 127.0.0.1:1"
        )
        self.assertEqual(code, 255)
        for fault in self.flushLoggedErrors():
            self.assertIn("Cannot execute commands", fault.getErrorMessage())
