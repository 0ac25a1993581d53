"""Proves what people are shown of the cluster, and what is an alarm."""

import io

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.hello import Drop
from mailsecure.cluster.watch import _MEANING
from mailsecure.control.cluster_tables import _IGNORED, cluster_page, unwell
from mailsecure.control.tables import group_line

from .fakes import NOON, group, node, report

EVIL = "evil\x1b[31m\r\n[red]{0.__class__}%s\u202e"
SHOWN = "evil\\x1b[31m\\x0d\\x0a[red]{0.__class__}%s\\u202e"


def printed(page, width=200):
    """Return what a page looks like, without the blanks at the end of lines."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    for each in page:
        console.print(each)
    return "\n".join(line.rstrip() for line in out.getvalue().split("\n"))


class PageTests(SynchronousTestCase):
    """The page for people."""

    maxDiff = None

    def page(self, width=200, **more):
        return printed(cluster_page(report(**more)), width)

    def test_all_is_well(self):
        self.assertEqual(
            self.page(width=80),
            f"""\
node mx1 at 192.0.2.11, a hello each 100ms: 72600 said, 72590 heard

mail: master since 2026-11-22 10:00:00 UTC, Master is mx1: nobody else is Master
  192.0.2.25 2001:db8::25 on eth0, held here
  priority 200, interval 100ms, 1 change of role

NODE         ADDRESS      ROLES              WEIGHT   LOAD     UP   VERSION
{"─" * 78}
mx1 (this)   192.0.2.11   mail: master/200      100    25%   2h1m   0.1.0
mx2          192.0.2.12   mail: backup/100      100    25%   2h1m   0.1.0

NODE   LAST HELLO   ROUND TRIP   CLOCK   LINK
{"─" * 50}
mx2      40ms ago        0.4ms    +3ms   up for 2h

every node hears every other
""",
        )

    def test_a_node_alone(self):
        page = self.page(nodes=[])
        self.assertNotIn("LAST HELLO", page)
        self.assertNotIn("hears", page)
        self.assertNotIn("ignored", page)

    def test_what_is_wrong_comes_first(self):
        text = "mail: more than one Master: mx1, mx2"
        page = self.page(alarms=[text], groups=[group(two_masters=True)], send_failures=4)
        self.assertEqual(page.split("\n")[1:3], [text, "4 hellos could not be sent"])
        self.assertIn("  MORE THAN ONE MASTER\n", page)

    def test_a_group_that_is_not_as_configured(self):
        page = self.page(
            groups=[
                group(
                    role="backup",
                    effective_priority=1,
                    addresses=[{"address": "192.0.2.25", "held": False}],
                    master="mx2",
                    reason="resigned by the postmaster",
                    changes=2,
                    standing_back_until=NOON + 610,
                ),
                group("web", effective_priority=256, claimed_until=NOON + 60),
                group("y", role="backup", standing_back_because="this node drains"),
                group("x", role="init", fault="interface eth0 is down", master=None),
            ]
        )
        for text in (
            "mail: backup since 2026-11-22 10:00:00 UTC, Master is mx2: "
            "resigned by the postmaster\n  192.0.2.25 on eth0, not held here\n"
            "  priority 200 (now 1), interval 100ms, 2 changes of role\n"
            "  stands back until 2026-11-22 12:10:10 UTC\n",
            "  priority 200 (now 256), interval 100ms, 1 change of role\n"
            "  told to be Master until 2026-11-22 12:01:00 UTC\n",
            "x: init since 2026-11-22 10:00:00 UTC, no Master is known: ",
            "  takes no part: interface eth0 is down\n",
            "  stands back: this node drains\n",
        ):
            self.assertIn(text, page)

    def test_who_takes_no_part_sees_who_is_master(self):
        page = self.page(
            groups=[group(role="init", master=None)],
            nodes=[node("mx2", ["mx1"], groups={"mail": "master/100", "web": "backup/9"})],
        )
        self.assertIn("mail: init since 2026-11-22 10:00:00 UTC, Master is mx1, mx2: ", page)
        self.assertIn("\nweb: not of this node, no Master is known\n", page)
        page = self.page(nodes=[node("mx2", ["mx1"], groups={"web": "master/9"})])
        self.assertIn("\nweb: not of this node, Master is mx2\n", page)

    def test_nodes(self):
        page = self.page(
            nodes=[
                node("mx2", ["mx1"], fitness=["draining", "overloaded"], clock_offset=3600),
                node("mx3", ["mx1"], role="scanner", groups={}, clock_offset=-2, link=None),
                node(
                    "mx4",
                    ["mx1"],
                    clock_offset=-0.5,
                    link={"up": False, "since": 3.0, "last_reason": "refused"},
                ),
                node("mx5", ["mx1"], link={"up": False, "since": 3.0, "last_reason": ""}),
            ]
        )
        for name, text in (
            ("mx2", "draining, overloaded"),
            ("mx2", "1h ahead   up for 2h"),
            ("mx3", "scanner"),
            ("mx3", "2s behind   none"),
            ("mx4", "-500ms   down for 3s: refused"),
            ("mx5", "+3ms   down for 3s"),
        ):
            lines = [line for line in page.split("\n") if line.startswith(name)]
            self.assertTrue(any(line.endswith(text) for line in lines), (name, text, lines))

    def heard(self, *nodes, mine=()):
        """Return what is said of who hears whom."""
        found = report(nodes=list(nodes))
        if mine:
            found["nodes"][0]["hears"] = list(mine)
        return printed(cluster_page(found)).rpartition("\n\n")[2].rstrip().split("\n")

    def test_one_direction(self):
        self.assertEqual(
            self.heard(node("mx2", [])),
            ["mx1 hears mx2", "mx2 hears nobody", "mx2 does not hear mx1"],
        )
        self.assertEqual(
            self.heard(node("mx2", ["mx1", "mx3"]), node("mx3", ["mx1"])),
            [
                "mx1 hears mx2, mx3",
                "mx2 hears mx1, mx3",
                "mx3 hears mx1",
                "mx3 does not hear mx2",
            ],
        )

    def test_who_is_not_heard_here(self):
        gone = node("mx2", ["mx1"], alive=False)
        self.assertEqual(self.heard(gone), ["mx2 is not heard any more"])
        self.assertEqual(
            self.heard(gone, node("mx3", ["mx1"])),
            ["mx2 is not heard any more", "the others hear each other"],
        )
        self.assertEqual(
            self.heard(gone, node("mx3", ["mx1", "mx2"]))[0],
            "mx1 does not hear mx2, heard by mx3",
        )

    def test_ignored_datagrams(self):
        page = self.page(drops={"bad signature": 3, "replayed": 12345, "odd\x1b": 1})
        self.assertTrue(
            page.endswith(
                "\nignored datagrams\n"
                "          3  with a wrong signature\n"
                "          1  odd\\x1b\n"
                "     12,345  heard before\n"
            ),
            page,
        )

    def test_they_have_the_words_of_the_log(self):
        self.assertEqual(_IGNORED, {drop.value: text for drop, text in _MEANING.items()})
        self.assertEqual(_IGNORED.keys() | {Drop.OWN.value}, {drop.value for drop in Drop})

    def test_names_from_outside_are_escaped(self):
        evil = node(
            EVIL,
            [EVIL],
            role=EVIL,
            address=EVIL,
            version=EVIL,
            fitness=[EVIL],
            groups={EVIL: f"master/{EVIL}"},
            link={"up": False, "since": 0, "last_reason": EVIL},
        )
        where = [{"address": EVIL, "held": False}]
        page = self.page(
            width=2000,
            node=EVIL,
            address=EVIL,
            nodes=[evil, node(EVIL + "2", alive=False)],
            groups=[
                group(EVIL, master=EVIL, reason=EVIL, addresses=where, interface=EVIL, fault=EVIL),
            ],
            drops={EVIL: 1},
            alarms=[EVIL],
        )
        self.assertTrue(all(line.isprintable() for line in page.split("\n")))
        for text in (
            f"node {SHOWN} at {SHOWN},",
            f"\n{SHOWN}\n",
            f"\n{SHOWN}: master since 2026-11-22 10:00:00 UTC, Master is {SHOWN}: {SHOWN}\n",
            f"  {SHOWN} on {SHOWN}, not held here\n",
            f"  takes no part: {SHOWN}\n",
            f"{SHOWN}: master/{SHOWN}",
            f"down for 0s: {SHOWN}",
            f"{SHOWN}2 is not heard any more\n",
            f"{SHOWN} does not hear mx1\n",
            f"  1  {SHOWN}\n",
        ):
            self.assertIn(text, page)


class UnwellTests(SynchronousTestCase):
    """What ``status --check`` alarms about."""

    def check(self, expected, **more):
        self.assertIs(unwell(report(**more)), expected)

    def test_one_master_is_well(self):
        self.check(False)
        self.check(False, groups=[group(role="backup", master="mx2")])

    def test_none_or_two_are_not(self):
        silent = node("mx2", ["mx1"], groups={})
        self.check(True, groups=[group("web", role="backup", master=None)], nodes=[silent])
        self.check(True, groups=[group(two_masters=True)])

    def test_who_takes_no_part_goes_by_what_the_others_say(self):
        init = group("web", role="init", master=None)
        for said, expected in (("master/100", False), ("backup/100", True)):
            self.check(expected, groups=[group(), init], nodes=[node("mx2", groups={"web": said})])
        dead = node("mx2", groups={"web": "master/100"}, alive=False)
        self.check(True, groups=[group(), init], nodes=[dead])

    def test_groups_of_others(self):
        one = node("mx2", groups={"web": "master/100"})
        two = node("mx3", groups={"web": "master/90"})
        self.check(False, nodes=[one])
        self.check(True, nodes=[one, two])
        self.check(True, nodes=[node("mx2", groups={"web": "backup/100"})])

    def test_no_groups(self):
        found = report(groups=[], nodes=[])
        found["nodes"][0]["groups"] = {}
        self.assertIs(unwell(found), False)


class StatusPageTests(SynchronousTestCase):
    """A group's line, and alarms, in ``mailsecure status``."""

    def test_a_line(self):
        line = group_line(group("mail", reason=EVIL)).plain
        self.assertEqual(
            line, f"mail: master since 2026-11-22 10:00:00 UTC, Master is mx1: {SHOWN}"
        )
