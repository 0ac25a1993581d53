"""The example file and the documentation say what the loader does."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import defaults, parse_config
from mailsecure.config.model import Topology
from mailsecure.config.reference import example, pages
from mailsecure.config.schema import DOMAINS_SECTION, SECTION_NAMES, SECTIONS, introduction
from mailsecure.errors import ConfigProblems

ETC = Path(__file__).parents[2] / "etc"


class Example(SynchronousTestCase):
    """etc/mailsecure.ini."""

    def test_the_file_is_the_generated_one(self) -> None:
        committed = (ETC / "mailsecure.ini").read_text(encoding="utf-8")
        self.assertEqual(
            committed,
            example(),
            "write it anew: python -c 'from mailsecure.config.reference import example; "
            'print(example(), end="")\' > etc/mailsecure.ini',
        )

    def test_it_gives_the_defaults(self) -> None:
        self.assertEqual(parse_config(example(), ""), defaults())

    def test_it_names_every_option_and_gives_the_defaults_without_the_marks(self) -> None:
        text = re.sub(r"^#(?! |$)", "", example(), flags=re.MULTILINE)
        groups = {}
        kept = []
        for part in re.split(r"^(?=#?\[)", text, flags=re.MULTILINE):
            title = part.partition("]")[0].lstrip("#[")
            if title.endswith(":NAME"):
                groups[title] = part.removeprefix("#")
            else:
                kept.append(part)
        config = parse_config("".join(kept), "")
        self.assertEqual(set(config.domains), {"example.com", ".example.com", "example.net", "*"})
        # A group cannot be all defaults: of what it lacks, each is told once.
        group = groups["virtual:NAME"]
        found = self.assertRaises(ConfigProblems, parse_config, group, "")
        self.assertEqual(
            [each.option for each in found.problems], ["", "addresses", "interface"], found
        )
        self.assertEqual(
            parse_config(text.partition("example.com = smtp")[0], ""),
            defaults(),
        )
        for section in SECTIONS.values():
            for name in section.options:
                self.assertIn(f"\n#{name} =", example())

    def test_it_fits_a_terminal(self) -> None:
        self.assertEqual([line for line in example().split("\n") if len(line) > 80], [])


def inis_of(page: str) -> list[str]:
    """Return the ini files, and parts of some, that a page of docs/ shows."""
    text = (ETC.parent / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"(?m)^( *)\.\. code-block:: ini\n\n((?:\1   .*\n|\n)+)", text)
    return [dedent(block) for _, block in blocks if "[Service]" not in block]


class ClusterPage(SynchronousTestCase):
    """docs/cluster.rst: what it proposes to copy is right."""

    def test_every_ini_is_read(self) -> None:
        inis = inis_of("cluster.rst")
        self.assertEqual(len(inis), 4)
        for ini in inis:
            whole = ini if "[cluster]" in ini else f"[cluster]\nkey_file = k\ninterface = e\n{ini}"
            config = parse_config(whole, "")
            self.assertTrue(config.cluster.key_file)
            self.assertTrue(config.virtual or config.cluster.unicast_peers)


class BalancingPage(SynchronousTestCase):
    """docs/balancing.rst: likewise."""

    def test_every_ini_is_read(self) -> None:
        option, first, second, third, director, scanner, proxied = inis_of("balancing.rst")
        self.assertIn(option.strip(), first)
        nodes = [parse_config(each, "") for each in (first, second, third, director, scanner)]
        for each in nodes:
            self.assertEqual(each.cluster.topology, Topology.ACTIVE_ACTIVE)
        self.assertEqual([each.cluster.weight for each in nodes], [100, 100, 50, 0, 100])
        groups = [[group.priority for group in each.virtual.values()] for each in nodes]
        self.assertEqual(groups, [[200], [100], [50], [200], []])
        self.assertEqual(len({each.node.name for each in nodes}), 5)
        self.assertTrue(parse_config(proxied, "").smtp.proxy_protocol)


class Pages(SynchronousTestCase):
    """One page a section."""

    def test_every_option_has_its_place(self) -> None:
        made = pages()
        self.assertEqual(tuple(made), SECTION_NAMES)
        for name, section in SECTIONS.items():
            for option in section.options.values():
                self.assertIn(f".. _ini-{name}-{option.name}:\n", made[name])
                self.assertIn(option.doc, made[name])
        self.assertIn("example.com = smtp://10.0.0.5:25", made[DOMAINS_SECTION])

    def test_what_a_reload_does(self) -> None:
        listen, max_errors = (
            pages()["smtp"].partition(f".. _ini-smtp-{name}:")[2].partition(".. _ini")[0]
            for name in ("listen", "max_errors")
        )
        self.assertIn(":A change: needs a restart", listen)
        self.assertIn(":A change: is applied by a reload", max_errors)

    def test_every_section_is_introduced(self) -> None:
        for name in SECTION_NAMES:
            self.assertGreater(len(introduction(name)), 150, name)
