"""Proves that a DKIM key is made once, kept to its owner, and told to the DNS."""

from __future__ import annotations

import errno
import json
import os
import pwd
from pathlib import Path
from unittest import mock

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control import dkim_keys
from mailsecure.control.dkim_command import dkim
from mailsecure.control.dkim_keys import make_key, zone_lines
from mailsecure.control.wire import Kind, Refusal
from mailsecure.scan.jobs.keys import read_key
from mailsecure.scan.private_keys import key_record, load_key


class DkimCommandTests(SynchronousTestCase):
    """``dkim keygen`` on real files."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "dkim.pem"
        self.ini = self.directory / "mailsecure.ini"
        self.ini.write_text("[node]\nhostname = mx.example.org\n")

    def run_command(self, *arguments: str) -> Result:
        words = ["keygen", "-c", str(self.ini), *arguments, str(self.path)]
        return CliRunner().invoke(dkim, words)

    def refusal(self, path: Path | None = None) -> Refusal:
        error: Refusal = self.assertRaises(Refusal, make_key, path or self.path, 0)
        return error

    def test_rsa(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        done = self.run_command("--domain", "Example.COM")
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertEqual(self.path.stat().st_mode & 0o7777, 0o600)
        key = load_key(self.path.read_text())
        self.assertIn("mail._domainkey.example.com. IN TXT (\n", done.output)
        strings = [each.strip().strip('"') for each in done.output.splitlines() if '"' in each]
        self.assertLess(max(map(len, strings)), 256)
        self.assertEqual("".join(strings), key_record(key))
        self.assertEqual(read_key(["".join(strings)]).bits, 2048)
        self.assertNotIn(self.path.read_text().splitlines()[1], done.output)

    def test_ed25519(self) -> None:
        done = self.run_command(
            "--domain", "example.com", "--selector", "Ed.1", "--ed25519", "--json"
        )
        told = json.loads(done.output)
        self.assertEqual(told["name"], "ed.1._domainkey.example.com")
        self.assertEqual(told["file"], str(self.path))
        self.assertEqual(told["record"], key_record(load_key(self.path.read_text())))
        self.assertEqual(read_key([told["record"]]).kind, "ed25519")
        line = zone_lines(told["name"], told["record"])
        self.assertEqual(line, [f'ed.1._domainkey.example.com. IN TXT "{told["record"]}"'])

    def test_nonsense(self) -> None:
        for words in (
            ("--domain", "not a domain"),
            ("--domain", "example.com", "--selector", "a..b"),
            ("--domain", "example.com", "--selector", "-a"),
            ("--domain", "example.com", "--selector", "a b"),
            ("--domain", "example.com", "--bits", "1024"),
            (),
        ):
            done = self.run_command(*words)
            self.assertEqual(done.exit_code, 2, words)
            self.assertFalse(self.path.exists())

    def test_never_over_another(self) -> None:
        self.path.write_text("precious")
        self.assertIs(self.refusal().kind, Kind.USAGE)
        self.assertEqual(self.path.read_text(), "precious")

    def test_no_directory(self) -> None:
        self.assertIs(self.refusal(self.directory / "a" / "b").kind, Kind.ABSENT)

    def test_half_a_file(self) -> None:
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch.object(dkim_keys.os, "fsync", side_effect=full):
            refusal = self.refusal()
        self.assertIs(refusal.kind, Kind.DISK)
        self.assertFalse(self.path.exists())

    def test_not_allowed(self) -> None:
        with mock.patch.object(dkim_keys.os, "open", side_effect=PermissionError(1, "no")):
            self.assertIs(self.refusal().kind, Kind.FORBIDDEN)

    def test_owner(self) -> None:
        """What root makes belongs to the user that the daemon becomes, if there is one."""
        someone = pwd.struct_passwd(("mail", "x", os.geteuid(), os.getegid(), "", "/", "/bin/sh"))
        with (
            mock.patch.object(dkim_keys.os, "geteuid", return_value=0),
            mock.patch.object(dkim_keys.pwd, "getpwnam", return_value=someone),
            mock.patch.object(dkim_keys.os, "fchown") as changed,
        ):
            make_key(self.path, 0, "mail")
            self.assertEqual(changed.call_args[0][1:], (someone.pw_uid, someone.pw_gid))
        self.path.unlink()
        with (
            mock.patch.object(dkim_keys.os, "geteuid", return_value=0),
            mock.patch.object(dkim_keys.pwd, "getpwnam", side_effect=KeyError),
        ):
            make_key(self.path, 0, "nobody-there")
        self.assertTrue(self.path.exists())
