"""The ini on this machine: unreadable files, relative paths, names, what is not there."""

from __future__ import annotations

import getpass
import grp
import os
import platform
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.files import full_name, read_config
from mailsecure.config.model import Config
from mailsecure.errors import ConfigProblems


class Files(SynchronousTestCase):
    """read_config in a directory of its own."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir(parents=True)
        self.ini = self.home / "m.ini"
        self.patch(platform, "node", lambda: "mx1.example.com")

    def read(self, text: str | bytes) -> Config:
        self.ini.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_config(self.ini)

    def problems(self, text: str | bytes) -> list[str]:
        found = self.assertRaises(ConfigProblems, self.read, text)
        return [str(each).replace(str(self.home), "HOME") for each in found.problems]

    def test_paths_start_at_the_directory_of_the_file(self) -> None:
        for name in ("cert.pem", "key.pem"):
            (self.home / name).write_text("")
        config = self.read(
            "[node]\nstate = ../state\n[smtp]\ntls_certificate = cert.pem\n"
            f"tls_key = {self.home}/key.pem\n[log]\nfile = m.log\n"
            "[domains]\na.example = maildir:mail\nb.example = mx\n"
        )
        self.assertEqual(config.file, str(self.ini))
        self.assertEqual(config.node.state, self.home.parent / "state")
        self.assertEqual(config.smtp.tls_certificate, self.home / "cert.pem")
        self.assertEqual(config.smtp.tls_key, self.home / "key.pem")
        self.assertEqual(config.delivery.tls_ca, None)
        self.assertEqual(config.log.file, f"{self.home}/m.log")
        self.assertEqual(config.domains["a.example"].path, f"{self.home}/mail")
        self.assertEqual(config.domains["b.example"].path, "")

    def test_the_directory_may_be_reached_by_a_link(self) -> None:
        (self.home / "real" / "etc").mkdir(parents=True)
        (self.home / "real" / "etc" / "m.ini").write_text("[node]\nstate = ../state\n")
        (self.home / "etc").symlink_to("real/etc")
        config = read_config(self.home / "etc" / "m.ini")
        self.assertEqual(config.node.state, self.home / "real" / "state")

    def test_the_log_on_standard_output(self) -> None:
        self.assertEqual(self.read("[node]\nstate = s").log.file, "-")

    def test_names_of_the_machine(self) -> None:
        config = self.read("[node]\nstate = s\n")
        self.assertEqual((config.node.name, config.node.hostname), ("mx1", "mx1.example.com"))
        config = self.read("[node]\nstate = s\nname = a\nhostname = b.example\n")
        self.assertEqual((config.node.name, config.node.hostname), ("a", "b.example"))

    def test_a_machine_with_a_bad_name(self) -> None:
        self.patch(platform, "node", lambda: "my box")
        self.assertEqual(
            self.problems("[node]\nstate = s\n"),
            [
                "HOME/m.ini: [node] hostname: this machine calls itself 'my box', which is no "
                "host's name; set one here (for example mx1.example.com)"
            ],
        )

    def test_full_names(self) -> None:
        hosts = self.home / "hosts"
        self.assertEqual(full_name("mx1", hosts), "mx1")
        hosts.write_text(
            "127.0.0.1 localhost\n# mx1.no\n\n10.0.0.1 mx1\n127.0.1.1 mx1.a.example mx1"
        )
        self.assertEqual(full_name("mx1", hosts), "mx1.a.example")
        self.assertEqual(full_name("mx2", hosts), "mx2")
        self.assertEqual(full_name("mx1.b.example", hosts), "mx1.b.example")

    def test_files_that_cannot_be_read(self) -> None:
        found = self.assertRaises(ConfigProblems, read_config, self.home / "no.ini")
        (problem,) = found.problems
        self.assertEqual(problem.file, f"{self.home}/no.ini")
        self.assertEqual(problem.what, "cannot be read: No such file or directory")
        for octets, line, what in (
            (b"[log]\n# caf\xe9\n", 2, "holds the octet 0xE9, which is not UTF-8"),
            ("[log]".encode("utf-16"), 1, "holds the octet 0xFF, which is not UTF-8"),
            (b"#" * (4 << 20) + b"\n", 0, "is larger than 4M: this is no ini file"),
        ):
            (problem,) = self.assertRaises(ConfigProblems, self.read, octets).problems
            self.assertEqual((problem.line, problem.what), (line, what))

    def test_what_is_named_and_not_there(self) -> None:
        (self.home / "file").write_text("")
        found = self.problems(
            "[node]\nstate = file/x/y\nuser = no-such-user\ngroup = no-such-group\n"
            "[smtp]\ntls_certificate = cert.pem\ntls_key = .\nmax_errors = x\n"
            "[domains]\na.example = maildir:file\n"
            "[log]\nfile = no/m.log\n"
        )
        self.assertEqual(
            found,
            [
                "HOME/m.ini:2: [node] state: HOME/file is no directory",
                "HOME/m.ini:3: [node] user: there is no user 'no-such-user' on this machine",
                "HOME/m.ini:4: [node] group: there is no group 'no-such-group' on this machine",
                "HOME/m.ini:6: [smtp] tls_certificate: HOME/cert.pem cannot be read: "
                "No such file or directory",
                "HOME/m.ini:7: [smtp] tls_key: HOME is a directory",
                "HOME/m.ini:8: [smtp] max_errors: 'x' is no whole number (the default is 20)",
                "HOME/m.ini:10: [domains] a.example: HOME/file is no directory",
                "HOME/m.ini:12: [log] file: there is no directory HOME/no",
            ],
        )
        self.assertEqual(
            self.problems("[node]\nstate = s\n[log]\nfile = .\n"),
            ["HOME/m.ini:4: [log] file: HOME is a directory"],
        )

    def test_who_is_there(self) -> None:
        user, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
        config = self.read(f"[node]\nstate = s\nuser = {user}\ngroup = {group}\n")
        self.assertEqual((config.node.user, config.node.group), (user, group))

    def test_a_state_directory_that_cannot_be_made(self) -> None:
        self.patch(os, "access", lambda path, mode: False)
        self.assertEqual(
            self.problems("[node]\nstate = a/b\n"),
            [
                "HOME/m.ini:2: [node] state: cannot be made: there is no HOME/a, "
                "and HOME is not yours to write"
            ],
        )
        self.assertEqual(self.read("[node]\nstate = a\n").node.state, self.home / "a")

    def test_a_key_file(self) -> None:
        key = self.home / "cluster.key"
        text = "[node]\nstate = s\n[cluster]\ninterface = no-such-one\nkey_file = cluster.key\n"
        where = "HOME/m.ini:5: [cluster] key_file: HOME/cluster.key"
        self.assertEqual(
            self.problems(text), [f"{where} cannot be read: No such file or directory"]
        )
        key.write_text("")
        for mode in (0o640, 0o604, 0o620, 0o601):
            key.chmod(mode)
            self.assertEqual(
                self.problems(text), [f"{where} can be read by others: chmod 600 it"], oct(mode)
            )
        for mode in (0o600, 0o400):
            key.chmod(mode)
            self.assertEqual(self.read(text).cluster.key_file, key)

    def test_a_command(self) -> None:
        (self.home / "key").touch(0o600)
        script = self.home / "moved"
        script.touch(0o644)
        group = "[virtual:{}]\ninterface = eth0\naddresses = 192.0.2.{}\nnotify = {}\n"
        text = "[node]\nstate = s\n[cluster]\nkey_file = key\ninterface = eth0\n"
        for number, notify in enumerate(
            (f"'{script}' --now", "/no/such", "no-such-one", "sh -c true", "")
        ):
            text += group.format("abcde"[number], number + 1, notify)
        self.assertEqual(
            self.problems(text),
            [
                "HOME/m.ini:9: [virtual:a] notify: HOME/moved may not be run: chmod 755 it",
                "HOME/m.ini:13: [virtual:b] notify: there is no command /no/such",
                "HOME/m.ini:17: [virtual:c] notify: there is no command no-such-one",
            ],
        )
        script.chmod(0o755)
        text = text.replace("/no/such", "/bin/true").replace("no-such-one", "true")
        self.assertEqual(self.read(text).virtual["b"].notify, "/bin/true")

    def test_a_domain_in_capitals_is_found_in_the_file(self) -> None:
        (self.home / "file").touch()
        self.assertEqual(
            self.problems("[node]\nstate = s\n[domains]\nA.Example = maildir:file\n"),
            ["HOME/m.ini:4: [domains] a.example: HOME/file is no directory"],
        )

    def test_a_mistake_is_not_told_again(self) -> None:
        self.assertEqual(len(self.problems("[node]\nstate = s\n[smtp]\ntls_key = no.pem\n")), 1)

    def test_the_demo(self) -> None:
        ini = Path(__file__).parents[2] / "etc" / "demo.ini"
        config = read_config(ini)
        self.assertEqual(config.smtp.listen, ("tcp:2525:interface=127.0.0.1",))
        self.assertEqual(config.relay.networks, ())
        self.assertEqual(config.smtp.greeting_delay, 0)
        self.assertEqual(config.node.state, ini.parents[1] / "demo-state")
        self.assertEqual(
            config.domains["example.com"].path, str(ini.parents[1] / "demo-state/mail")
        )
