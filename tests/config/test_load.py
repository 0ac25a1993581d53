"""The text of an ini becomes a Config, or every problem in it at once, at its line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.change import as_ini
from mailsecure.config.kinds import KINDS
from mailsecure.config.load import defaults, load, parse_config
from mailsecure.config.model import BareNewlines, Route, RouteKind, StartAs
from mailsecure.config.reader import read_ini
from mailsecure.config.schema import SECTION_NAMES, SECTIONS
from mailsecure.errors import ConfigProblems, Problem

TEN_MISTAKES = """\
[smtp]
listen = tcp:25
    tpc:587
max_recipients = many
command_timout = 5m
listen = tcp:2525
networks = 10.0.0.0/8
[relay]
networks = 10.0.0.0/8, 10.1.2.3/16
[domain]
[domains]
example.com = smpt://10.0.0.5
*.example.net = mx
[manhole]
listen = tcp:2222:interface=::1
"""
TEN_PROBLEMS = """\
t.ini:3: [smtp] listen: 'tpc' is no kind of endpoint; there are tcp, tcp6, unix, systemd; \
did you mean tcp? (the default is tcp:25)
t.ini:4: [smtp] max_recipients: 'many' is no whole number (the default is 1000)
t.ini:5: [smtp] command_timout: there is no such option (did you mean command_timeout?)
t.ini:6: [smtp] listen: is set in line 2 already
t.ini:7: [smtp] networks: there is no such option (it belongs to [relay])
t.ini:9: [relay] networks: '10.1.2.3/16' is an address within a network: \
did you mean 10.1.0.0/16? (the default is 127.0.0.0/8 ::1/128)
t.ini:10: [domain]: there is no such section (did you mean domains?)
t.ini:12: [domains] example.com: 'smpt' is no kind of route; did you mean smtp?
t.ini:13: [domains] *.example.net: for every domain below example.net write .example.net
t.ini:15: [manhole] listen: interface '' is no IP address of this machine \
(colons of an IPv6 address are escaped: interface=\\:\\:1)"""


#: Three lines that a virtual group can stand on, and what its name may be.
CLUSTER = "[cluster]\nkey_file = k\ninterface = eth0\n"
_MEMBERS = "up to 31 letters, digits, hyphens and underscores"


def problems(text: str) -> list[str]:
    """Return what is wrong with ``text``, each as "line [section] option: what (hint)"."""
    try:
        parse_config(text, "")
    except ConfigProblems as found:
        return [in_words(each) for each in found.problems]
    return []


def in_words(problem: Problem) -> str:
    """Return the fields of a problem that are set, without the file."""
    place = (
        str(problem.line) if problem.line else "",
        f"[{problem.section}]" if problem.section else "",
        problem.option,
    )
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{' '.join(filter(None, place))}: {problem.what}{hint}"


class Reading(SynchronousTestCase):
    """The grammar of lines."""

    def values(self, text: str) -> dict[tuple[str, str], str]:
        ini = read_ini(text, "")
        self.assertEqual(ini.problems, [])
        return {key: entry.text for key, entry in ini.entries.items()}

    def test_comments_continuation_and_blanks(self) -> None:
        text = (
            "\ufeff# first\r\n; second\r\n  # third\r\n[ a ] # fourth\r\n"
            "x = 1 # fifth\r\n\r\n   ; sixth\r\n\t2\t# seventh\r\n"
            "y=a#b;c ; d=e\r\nz =\r\n"
        )
        self.assertEqual(
            self.values(text),
            {("a", "x"): "1\n2", ("a", "y"): "a#b;c ; d=e", ("a", "z"): ""},
        )

    def test_nothing_is_expanded(self) -> None:
        self.assertEqual(self.values("[a]\nx = %(y)s ${HOME}")["a", "x"], "%(y)s ${HOME}")

    def test_broken_lines(self) -> None:
        for text, expected in (
            ("x = 1", "1 x: stands before the first [section]"),
            ("[smtp\nx = 1\n  2", "1: a section is written [name]"),
            ("[smtp]\nlisten", "2 [smtp]: an option is written: name = value"),
            ("= 1", "1: an option is written: name = value"),
            (
                "[log]\n  level = info",
                "2 [log]: an indented line continues the option above it, and there is none "
                "(options begin at the start of a line)",
            ),
            (
                "  level = info",
                "1: an indented line continues the option above it, and there is none "
                "(options begin at the start of a line)",
            ),
            ("[log]\n[smtp]\n[log]", "3 [log]: this section began in line 1 already; "
             "put its options there"),
            ("[log]\n\n[smtp]\0", "3: holds a NUL: this is no text file"),
            ("[log]\nlevel =\u00a0info", "2 [log]: holds the character U+00A0, which cannot be "
             "seen (type the line again)"),
            ("[log]\rlevel = info", "1: holds the character U+000D, which cannot be seen "
             "(type the line again)"),
            ("[]", "1: there is no such section"),
        ):  # fmt: skip
            self.assertEqual(problems(text), [expected], text)


class Loading(SynchronousTestCase):
    """Options, sections and domains."""

    def test_ten_mistakes(self) -> None:
        found = self.assertRaises(ConfigProblems, parse_config, TEN_MISTAKES, "t.ini")
        self.assertEqual(len(found.problems), 10)
        self.assertEqual([str(each) for each in found.problems], TEN_PROBLEMS.split("\n"))

    def test_nothing_is_required(self) -> None:
        config = parse_config("", "x.ini")
        self.assertEqual(config.file, "x.ini")
        self.assertEqual(config, replace(defaults(), file="x.ini"))
        self.assertEqual(config.smtp.listen, ("tcp:25",))
        self.assertEqual(config.smtp.drain_timeout, 30.0)
        self.assertEqual(config.domains, {})

    def test_values(self) -> None:
        config = parse_config(
            "[smtp]\nlisten =\n  tcp:25\n  tcp6:25\nbare_newlines = normalise\n"
            "bare_newlines_networks = 10.0.0.0/8\n"
            "[domains]\nExample.com = smtp://10.0.0.5\n.example.com = mx\n* = maildir:/m\n",
            "",
        )
        self.assertEqual(config.smtp.listen, ("tcp:25", "tcp6:25"))
        self.assertIs(config.smtp.bare_newlines, BareNewlines.NORMALISE)
        self.assertEqual(
            config.domains,
            {
                "example.com": Route(RouteKind.SMTP, "10.0.0.5", 25),
                ".example.com": Route(RouteKind.MX),
                "*": Route(RouteKind.MAILDIR, path="/m"),
            },
        )

    def test_a_single_value_over_two_lines(self) -> None:
        self.assertEqual(
            problems("[smtp]\ncommand_timeout = 5m\n  data_timeout = 3m"),
            [
                "3 [smtp] command_timeout: takes one line; this indented line continues it "
                "(the default is 5m)"
            ],
        )

    def test_lines_that_are_wrong_together(self) -> None:
        self.assertEqual(
            problems("[delivery]\nsource_address = 192.0.2.1\n  192.0.2.2"),
            [
                "2 [delivery] source_address: takes one IPv4 and one IPv6 address at most",
            ],
        )

    def test_an_empty_value_that_is_none(self) -> None:
        self.assertEqual(
            problems("[smtp]\nmax_errors ="),
            ["2 [smtp] max_errors: '' is no whole number (the default is 20)"],
        )

    def test_domains(self) -> None:
        self.assertEqual(
            problems("[domains]\nBÜCHER.example = mx\nxn--bcher-kva.example = mx"),
            ["3 [domains] xn--bcher-kva.example: is the same domain as in line 2"],
        )
        self.assertEqual(
            problems("[domains]\na.example = mx\n  b.example = mx"),
            ["2 [domains] a.example: a domain takes one route, in one line"],
        )

    def test_what_is_quoted_stays_readable(self) -> None:
        (problem,) = problems(f"[log]\nlevel = {'x' * 1000}")
        self.assertEqual(problem, f"2 [log] level: '{'x' * 299}… (the default is info)")

    def test_a_name_like_no_other(self) -> None:
        self.assertEqual(
            problems("[zzz]\n[log]\nqqq = 1"),
            ["1 [zzz]: there is no such section", "3 [log] qqq: there is no such option"],
        )

    def test_a_family(self) -> None:
        config = parse_config(
            "[virtual:mail_2]\naddresses = 192.0.2.26\ninterface = eth1\n"
            "[cluster]\nkey_file = k\ninterface = eth0\n"
            "[virtual:Mail-1]\naddresses = 192.0.2.25/24 2001:db8::25\npriority = 255\n",
            "",
        )
        self.assertEqual(list(config.virtual), ["mail_2", "Mail-1"])
        second, first = config.virtual.values()
        self.assertEqual([str(each) for each in second.addresses], ["192.0.2.26/32"])
        self.assertEqual(
            [str(each) for each in first.addresses], ["192.0.2.25/24", "2001:db8::25/128"]
        )
        self.assertEqual((second.interface, first.interface), ("eth1", "eth0"))
        self.assertEqual((second.start_as, first.start_as), (StartAs.BACKUP, StartAs.MASTER))
        self.assertEqual(defaults().virtual, {})

    def test_titles_of_a_family(self) -> None:
        form = "(it is written [virtual:NAME])"
        for title, expected in (
            ("virtual", f"1 [virtual]: needs a name behind a colon {form}"),
            ("virtual:", f"1 [virtual:]: '' is no name: {_MEMBERS} {form}"),
            ("virtual: a", f"1 [virtual: a]: ' a' is no name: {_MEMBERS} {form}"),
            ("virtual:a:b", f"1 [virtual:a:b]: 'a:b' is no name: {_MEMBERS} {form}"),
            (
                f"virtual:{'x' * 32}",
                f"1 [virtual:{'x' * 32}]: '{'x' * 32}' is no name: {_MEMBERS} {form}",
            ),
            ("Virtual:a", "1 [Virtual:a]: there is no such section (did you mean virtual:a?)"),
            ("virtul", "1 [virtul]: there is no such section (did you mean virtual:NAME?)"),
            ("log:a", "1 [log:a]: there is no such section (did you mean log?)"),
            ("domains:a", "1 [domains:a]: there is no such section (did you mean domains?)"),
        ):
            # An option of a section that is none is not told besides.
            self.assertEqual(problems(f"[{title}]\npriority = x"), [expected], title)

    def test_options_of_a_family(self) -> None:
        text = CLUSTER + "[virtual:a]\naddresses = 192.0.2.25\n"
        self.assertEqual(
            problems(f"{text}prioriti = 1\nrole = both\nweight = 0\npriority = 256"),
            [
                "6 [virtual:a] prioriti: there is no such option (did you mean priority?)",
                "7 [virtual:a] role: there is no such option (it belongs to [cluster])",
                "8 [virtual:a] weight: there is no such option (it belongs to [cluster] or "
                "[rspamd] or [spamassassin])",
                "9 [virtual:a] priority: 256 is no priority: a number from 1 to 255 "
                "(the default is 100)",
            ],
        )
        self.assertEqual(
            problems(f"{text}[cluster]\npreempt = no\n[virtual:a]"),
            [
                "6 [cluster]: this section began in line 1 already; put its options there",
                "7 [cluster] preempt: there is no such option (it belongs to [virtual:NAME])",
                "8 [virtual:a]: this section began in line 4 already; put its options there",
            ],
        )

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        problems(text)

    @given(
        st.lists(
            st.sampled_from([f"[{name}]" for name in (*SECTION_NAMES, "virtual:a", "log:a")])
            | st.sampled_from([o for s in SECTIONS.values() for o in s.options]).map("{} = ".format)
            | st.text(max_size=9)
            | st.sampled_from(["  tcp:26", "5m", "\n", "listen = tcp:25", "a.example = mx"])
        )
    )
    def test_any_lines(self, lines: list[str]) -> None:
        for glue in ("\n", ""):
            problems(glue.join(lines))


class Contradictions(SynchronousTestCase):
    """Options that are wrong together."""

    def test_each(self) -> None:
        for text, expected in (
            ("[smtp]\ntls_key = k", "2 [smtp] tls_key: is of no use without tls_certificate"),
            ("[smtp]\nlisten_tls = tcp:465", "2 [smtp] listen_tls: needs a tls_certificate"),
            (
                "[manhole]\nlisten = tcp:2222",
                "2 [manhole] listen: needs authorized_keys: nobody could enter",
            ),
            ("[node]\ngroup = mail", "2 [node] group: is of no use without user"),
            (
                "[smtp]\nlisten =",
                "2 [smtp] listen: is empty, and so is listen_tls: no mail could arrive",
            ),
            (
                "[smtp]\nlisten = tcp:25\n  tcp:25",
                "2 [smtp] listen: tcp:25 is listed twice; it can be bound once",
            ),
            (
                "[metrics]\nlisten = tcp:25",
                "2 [metrics] listen: tcp:25 is listed twice; it can be bound once",
            ),
            (
                "[smtp]\nmax_sessions = 10",
                "[smtp] max_sessions_per_client: is more than max_sessions",
            ),
            (
                "[delivery]\nexpire = 1h",
                "[delivery] warn_after: is more than expire",
            ),
            (
                "[delivery]\nconcurrency = 900",
                "2 [delivery] concurrency: is more than max_connections",
            ),
            (
                "[smtp]\nmax_line_length = 998",
                "2 [smtp] max_line_length: is below the 1000 octets of RFC 5321 §4.5.3.1.6",
            ),
            (
                "[smtp]\nmax_message_size = 10K",
                "2 [smtp] max_message_size: is below the 64K of RFC 5321 §4.5.3.1.7",
            ),
            (
                "[smtp]\nbare_newlines = normalise",
                "2 [smtp] bare_newlines: is normalise, but bare_newlines_networks is empty: "
                "nobody's are normalised",
            ),
            (
                "[relay]\nnetworks = 10.0.0.0/8 0.0.0.0/0",
                "2 [relay] networks: 0.0.0.0/0 is the whole internet: anybody could send mail "
                "to anybody (name your own networks)",
            ),
        ):
            self.assertEqual(problems(text), [expected], text)

    def test_a_node_of_a_cluster(self) -> None:
        for text, expected in (
            (
                "key_file = k",
                "2 [cluster] key_file: needs an interface or an address: where are the other "
                "nodes? (set interface)",
            ),
            (
                "topology = active-active",
                "2 [cluster] topology: is active-active, which needs a key_file: without it no "
                "other node is known (mailsecure cluster keygen writes one)",
            ),
            (
                "peer_listen = 5025",
                "2 [cluster] peer_listen: is 5025, which is link_listen's port already",
            ),
            (
                "address = 2001:db8::1",
                "2 [cluster] address: is IPv6, but group is IPv4 "
                "(set group to [ff02::2525]:5025, for example)",
            ),
            (
                "unicast_peers = 192.0.2.1 2001:db8::1 2001:db8::2",
                "2 [cluster] unicast_peers: 2001:db8::1 is IPv6, but group is IPv4 "
                "(set group to [ff02::2525]:5025, for example)",
            ),
            (
                "group = [ff02::1]:9\nunicast_peers = 192.0.2.1:99",
                "3 [cluster] unicast_peers: 192.0.2.1:99 is IPv4, but group is IPv6 "
                "(set group to 239.255.25.25:5025, for example)",
            ),
        ):
            self.assertEqual(problems(f"[cluster]\n{text}"), [expected], text)

    def test_weight_of_a_director(self) -> None:
        for text, weight in (
            ("", 100),
            ("role = director", 0),
            ("role = director\nweight = 5", 5),
            ("role = scanner", 100),
        ):
            self.assertEqual(parse_config(f"[cluster]\n{text}", "").cluster.weight, weight, text)

    def test_virtual_groups(self) -> None:
        for text, expected in (
            (
                "[virtual:a]\naddresses = 192.0.2.25\ninterface = eth0",
                "1 [virtual:a]: needs a key_file in [cluster]: without it no other node is known "
                "(mailsecure cluster keygen writes one)",
            ),
            (
                "[cluster]\nkey_file = k\naddress = 192.0.2.1\n[virtual:a]\naddresses = 192.0.2.25",
                "4 [virtual:a] interface: is set neither here nor in [cluster] (for example eth0)",
            ),
            (
                CLUSTER + "[virtual:a]",
                "4 [virtual:a] addresses: is empty: what is the Master to hold?",
            ),
            (
                CLUSTER + "role = scanner\n[virtual:a]\naddresses = 192.0.2.25",
                "4 [cluster] role: is scanner, which never is Master, but there is [virtual:a] "
                "(take that section out on this node, or set role to both)",
            ),
            (
                CLUSTER + "[virtual:a]\naddresses = 192.0.2.25\npreempt = no\npreempt_delay = 1m",
                "7 [virtual:a] preempt_delay: is of no use with preempt = no",
            ),
            (
                CLUSTER + "[virtual:a]\naddresses = 192.0.2.25\npriority = 255\nstart_as = backup",
                "7 [virtual:a] start_as: is backup, but priority 255 starts as Master "
                "(RFC 9568 §6.4.1) (take 254, or leave start_as out)",
            ),
            (
                CLUSTER + "[virtual:a]\naddresses = 192.0.2.25\n"
                "[virtual:b]\naddresses = 192.0.2.26\n  192.0.2.25/24",
                "7 [virtual:b] addresses: 192.0.2.25 is in [virtual:a] already",
            ),
            (
                CLUSTER + "address = 192.0.2.25\n[virtual:a]\naddresses = 192.0.2.25/24",
                "6 [virtual:a] addresses: 192.0.2.25 is this node's own address in [cluster] "
                "(clients get an address of their own, which no node has for itself)",
            ),
            (
                CLUSTER
                + "".join(f"[virtual:g{n}]\naddresses = 10.0.0.{n}\n" for n in range(1, 19)),
                "36 [virtual:g17]: is one virtual group too many: 16 at most "
                "(one group may have several addresses)",
            ),
        ):
            self.assertEqual(problems(text), [expected], text)

    def test_free_ports_may_be_had_twice(self) -> None:
        self.assertEqual(problems("[smtp]\nlisten = tcp:0\n  tcp:0\n  tcp6:0"), [])

    def test_one_mistake_is_told_once(self) -> None:
        self.assertEqual(
            problems("[smtp]\ntls_key = k\ntls_certificate = ~/c"),
            ["3 [smtp] tls_certificate: ~ is not expanded: write the whole path"],
        )

    def test_what_is_in_order(self) -> None:
        text = "[smtp]\nlisten =\nlisten_tls = tcp:465\ntls_certificate = c\ntls_key = k\n"
        text += "[manhole]\nlisten = tcp:22\nauthorized_keys = a\n[node]\nuser = u\ngroup = g\n"
        text += (
            f"{CLUSTER}address = 2001:db8::1\ngroup = [ff02::9]:1\nunicast_peers = 2001:db8::2\n"
        )
        text += "[virtual:a]\naddresses = 192.0.2.25\npreempt_delay = 1m\nstart_as = master\n"
        text += "[virtual:b]\naddresses = 192.0.2.26\npriority = 255\npreempt = no\n"
        self.assertEqual(problems(text), [])


def _texts(kind: str) -> st.SearchStrategy[str]:
    """Texts that this kind mostly takes, where arbitrary ones hardly ever are."""
    number = st.integers(0, 10**6)
    return {
        "size": number.map(str),
        "count": number.map(str),
        "limit": number.map(str),
        "duration": number.map("{}ms".format),
        "timeout": number.map("{}s".format),
        "durations": st.lists(number.map("{}s".format)).map(" ".join),
        "networks": st.lists(st.ip_addresses().map(str)).map(" ".join),
        "servers": st.lists(st.ip_addresses(v=4).map("{}:53".format)).map(" ".join),
        "addresses": st.ip_addresses().map(str),
        "endpoints": st.lists(st.integers(0, 65535).map("tcp:{}".format)).map("\n    ".join),
        "yes-no": st.sampled_from(["yes", "no"]),
        "directory": st.text("/ab#;=[.", min_size=1, max_size=9),
        "file?": st.text("/ab#;=[.", max_size=9),
        "secret?": st.text("/ab#;=[.", max_size=9),
        "address?": st.ip_addresses().map(str),
        "multicast": st.ip_addresses(network="239.0.0.0/8").map("{}:99".format),
        "peers": st.lists(st.ip_addresses(v=6).map("[{}]:53".format)).map(" ".join),
        "port": st.integers(1, 65535).map(str),
        "interfaces": st.lists(st.ip_addresses().map(str), unique=True).map(" ".join),
        "priority": st.integers(1, 255).map(str),
        "advertisement": st.integers(10, 40950).map("{}ms".format),
        "command": st.text("/ab '\"#\\", max_size=9),
    }.get(kind, st.text("ab1#;=[] ", max_size=9))


@st.composite
def _inis(draw: Any) -> str:
    lines = []
    titles = [(each.name, each) for each in SECTIONS.values() if not each.family]
    members = st.lists(st.text("aB9-_", min_size=1, max_size=31), max_size=3, unique=True)
    for each in SECTIONS.values():
        if each.family:
            titles += [(f"{each.name}:{member}", each) for member in draw(members)]
    for title, section in draw(st.permutations(titles)):
        lines.append(f"[{title}]")
        for option in section.options.values():
            if draw(st.integers(0, 3)) == 0:
                text = draw(_texts(option.kind)).strip()
                try:
                    KINDS[option.kind].parse(text.split(" #")[0], option.type)
                except ValueError:
                    continue
                lines.append(f"{option.name} = {text}")
    lines.append("[domains]")
    lines.extend(draw(st.sets(st.sampled_from(["a.example = mx", "* = smtp://[::1]:9"]))))
    return "\n".join(lines)


class RoundTrip(SynchronousTestCase):
    """A Config written out is read as the same Config."""

    def test_no_comment(self) -> None:
        once = load("[manhole]\nauthorized_keys = ./#keys", "")
        self.assertEqual(load(as_ini(once.config), "").config, once.config)

    @given(_inis())
    def test_round_trip(self, text: str) -> None:
        # Contradictions are wanted here: values drawn at random seldom fit together.
        once = load(text, "")
        again = load(as_ini(once.config), "")
        self.assertEqual(again.config, once.config)
