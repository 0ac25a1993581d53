"""Proves that a question about the quarantine and the history is one to all nodes.

Some nodes are made that answer from lists, and links between them that deliver in time.
"""

import contextlib
import json
import random
from collections import deque
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.answers import BEGIN, LONGEST_LINE, PATIENCE, PIECE, PeerAway
from mailsecure.control.everywhere import Everywhere
from mailsecure.control.questions import MOST_OPEN, Questions
from mailsecure.control.requests import Requests
from mailsecure.control.wire import Kind, Refusal
from mailsecure.errors import LocalFault, RemoteFault
from mailsecure.world import World

from .fakes import NOON, FakeCluster, FakeScheduler, desk
from .test_quarantine_requests import InlineWorld


class Links:
    """Between all nodes, each with a line of its own; ``away`` are not linked."""

    def __init__(self):
        self.listeners = {}
        self.queue = deque()
        self.full = set()
        self.said = []

    def of(self, node):
        return Line(self, node)

    def deliver(self):
        """Deliver everything, also what is said meanwhile."""
        while self.queue:
            source, target, text = self.queue.popleft()
            self.said.append((source, target, json.loads(text)))
            if target in self.listeners:
                self.listeners[target].heard(source, json.loads(text))

    def cut(self, node):
        """A node dies."""
        gone = self.listeners.pop(node)
        for other, listener in self.listeners.items():
            listener.unlinked(node)
            gone.unlinked(other)


class Line:
    """What one node has of them."""

    def __init__(self, links, node):
        self.links, self.node = links, node

    def hear(self, subject, listener):
        assert subject == "ask"
        for other, known in self.links.listeners.items():
            known.linked(self.node)
            listener.linked(other)
        self.links.listeners[self.node] = listener

    def tell(self, node, subject, body):
        text = json.dumps(body)
        if len(text) > 65000:
            raise ValueError("too long")
        if node in self.links.full or node not in self.links.listeners:
            return False
        self.links.queue.append((self.node, node, text))
        return True


class Node:
    """A node's own answers."""

    def __init__(self, test, name, *, common="", known=()):
        self.name = name
        self.asked = []
        self.results = {}
        world = World(test.clock, test.clock, lambda: NOON, random.Random(name), None)
        self.everywhere = Everywhere(
            world, self.here, lambda uid: succeed(f"u (uid {uid})"), name, lambda: known, common
        )

    async def here(self, request, arguments, asker, send):
        self.asked.append((request, arguments, asker))
        items, last = self.results[request]
        for item in items:
            await send(item)
        if isinstance(last, Exception):
            raise last
        if isinstance(last, Deferred):
            last = await last
        return last


def held(number, arrived, recipients=1):
    return {
        "id": f"{number:013}",
        "arrived": arrived,
        "recipients": [f"r{index}@x" for index in range(recipients)],
    }


def known(number, time, node, kind="message", more=""):
    return {"kind": kind, "id": f"{number:013}", "time": time, "node": node, "more": more}


class EverywhereTests(SynchronousTestCase):
    """Three nodes, of which a is asked."""

    def setUp(self):
        self.clock = Clock()
        self.links = Links()
        self.nodes = {}
        for name in "abc":
            node = self.nodes[name] = Node(self, name, known="abc")
            node.everywhere.start(self.links.of(name))
        self.a, self.b, self.c = self.nodes.values()

    def answers(self, request, **results):
        """Say what each node answers; what is not named holds nothing."""
        for name, node in self.nodes.items():
            node.results[request] = results.get(name, ([], {"messages": 0, "recipients": 0}))

    def ask(self, request, **arguments):
        """Return the items and the result, or the Refusal."""
        self.items = []

        async def send(item):
            self.items.append(item)

        asked = Deferred.fromCoroutine(self.a.everywhere.answer(request, arguments, 7, send))
        self.links.deliver()
        return asked

    def asked(self, request, **arguments):
        done = self.successResultOf(self.ask(request, **arguments))
        return self.items, done

    def refusal(self, request, **arguments):
        return self.failureResultOf(self.ask(request, **arguments), Refusal).value

    # -- the quarantine

    def listed(self, **results):
        self.answers(
            "quarantine.list",
            **{
                name: (items, {"messages": len(items), "recipients": 0})
                for name, items in results.items()
            },
        )

    def test_list(self):
        """The newest first, whoever holds it, with the name of the node."""
        self.listed(a=[held(5, 50), held(2, 20)], b=[held(4, 40, 3)], c=[held(6, 60), held(1, 10)])
        items, done = self.asked("quarantine.list", sender="x")
        self.assertEqual([each["arrived"] for each in items], [60, 50, 40, 20, 10])
        self.assertEqual([each["node"] for each in items], ["c", "a", "b", "a", "c"])
        self.assertEqual(done, {"messages": 5, "recipients": 7, "away": {}})
        wanted = ("quarantine.list", {"sender": "x"})
        self.assertEqual(self.a.asked, [(*wanted, 7)])
        self.assertEqual(self.b.asked, [(*wanted, "u (uid 7) on a")])

    def test_list_the_oldest_first(self):
        self.listed(a=[held(2, 20), held(5, 50)], b=[held(3, 20), held(4, 40)])
        items, _ = self.asked("quarantine.list", oldest_first=True)
        self.assertEqual([each["id"][-1] for each in items], ["2", "3", "4", "5"])

    def test_limit(self):
        """Of all together; the rest is not even sent."""
        many = [held(number, number) for number in range(4000, 0, -1)]
        self.listed(a=[held(1, 1)], b=many, c=[])
        items, done = self.asked("quarantine.list", limit=3)
        self.assertEqual([each["arrived"] for each in items], [4000, 3999, 3998])
        self.assertEqual(done["messages"], 3)
        self.links.deliver()
        self.assertEqual(sum("piece" in said for _, _, said in self.links.said), 2)
        self.assertIn("drop", self.links.said[-1][2])

    def test_long_list(self):
        """In pieces, none of which comes before there is room."""
        many = [held(number, number) for number in range(4000, 0, -1)]
        self.listed(a=[], b=many, c=[])
        items, done = self.asked("quarantine.list")
        self.assertEqual((len(items), done["messages"]), (4000, 4000))
        pieces = [said for _, _, said in self.links.said if said.get("text") and "text" in said]
        self.assertTrue(all(len(each["text"]) <= PIECE for each in pieces))
        self.assertGreater(len(pieces), 10)

    def test_one_node(self):
        self.listed(a=[held(1, 1)], b=[held(2, 2)], c=[held(3, 3)])
        for name in "abc":
            items, done = self.asked("quarantine.list", node=name)
            self.assertEqual([each["node"] for each in items], [name])
            self.assertEqual(done["away"], {})
        self.assertNotIn("node", self.b.asked[-1][1])

    def test_no_such_node(self):
        refusal = self.refusal("quarantine.list", node="d" * 100)
        self.assertEqual(refusal.kind, Kind.ABSENT)
        self.assertEqual(str(refusal), f"no node '{'d' * 64}': there are a, b, c")

    def test_a_node_is_away(self):
        """The others answer, and it is told; alone it is refused."""
        self.listed(a=[held(1, 1)], b=[held(2, 2)])
        self.links.cut("c")
        items, done = self.asked("quarantine.list")
        self.assertEqual(len(items), 2)
        self.assertEqual(done["away"], {"c": "is not linked"})
        refusal = self.refusal("quarantine.list", node="c")
        self.assertEqual((refusal.kind, str(refusal)), (Kind.UNAVAILABLE, "c is not linked"))

    def test_a_node_is_silent(self):
        """It is waited for, and not for ever."""
        self.listed(a=[held(1, 1)], b=[held(2, 2)])
        self.links.listeners["c"] = type("Silent", (), {"heard": lambda *_: None})()
        asked = self.ask("quarantine.list")
        self.assertNoResult(asked)
        self.clock.advance(BEGIN)
        self.links.deliver()
        self.assertEqual(self.successResultOf(asked)["away"], {"c": "does not answer"})

    def test_a_node_dies_in_the_middle(self):
        self.listed(a=[], c=[held(1, 1)])
        self.nodes["b"].results["quarantine.list"] = ([held(2, 2)], Deferred())
        asked = self.ask("quarantine.list")
        self.assertNoResult(asked)
        self.links.cut("b")
        self.links.deliver()
        self.assertEqual(self.successResultOf(asked)["away"], {"b": "has gone"})
        self.assertEqual([each["node"] for each in self.items], ["c"])

    def test_what_is_wrong_with_the_question(self):
        """Is refused, not a node's fault."""
        wrong = ([], Refusal(Kind.USAGE, "limit is a whole number"))
        self.answers("quarantine.list", a=wrong, b=wrong, c=wrong)
        for node in ("", "b"):
            self.assertEqual(self.refusal("quarantine.list", node=node).kind, Kind.USAGE)

    def test_release_everywhere(self):
        """With a filter each node does it, and who asked is told there."""
        self.answers(
            "quarantine.release",
            a=([], {"messages": 1, "recipients": 2}),
            b=([], {"messages": 3, "recipients": 3}),
            c=([], LocalFault("the disk is full")),
        )
        items, done = self.asked("quarantine.release", sender="x", reason="r")
        self.assertEqual(items, [])
        self.assertEqual(
            done, {"messages": 4, "recipients": 5, "away": {"c": "says: the disk is full"}}
        )
        self.assertEqual(self.b.asked[0][1:], ({"sender": "x", "reason": "r"}, "u (uid 7) on a"))

    def test_release_one(self):
        """An id is in one place: who has it does it, whoever is away."""
        self.answers("quarantine.release", b=([], {"messages": 1, "recipients": 1}))
        self.links.cut("c")
        _, done = self.asked("quarantine.release", id="X")
        self.assertEqual(done, {"messages": 1, "recipients": 1, "away": {}})
        self.answers("quarantine.release", a=([], {"messages": 1, "recipients": 1}))
        self.b.asked.clear()
        self.asked("quarantine.release", id="X")
        self.assertEqual(self.b.asked, [])
        self.answers("quarantine.release")
        _, done = self.asked("quarantine.release", id="X")
        self.assertEqual((done["messages"], done["away"]), (0, {"c": "is not linked"}))

    def test_release_at_one_node(self):
        self.answers("quarantine.delete", c=([], {"messages": 2, "recipients": 2}))
        _, done = self.asked("quarantine.delete", node="c", sender="x")
        self.assertEqual(done["messages"], 2)
        self.assertEqual((self.a.asked, self.b.asked), ([], []))

    def test_nothing_stays_open(self):
        """Whatever ends a request: all that was asked is dropped."""
        wrong = ([], Refusal(Kind.USAGE, "no such argument"))
        self.answers("quarantine.release", b=wrong, c=([], Deferred()))
        self.answers("count", b=wrong, c=([], Deferred()))
        self.a.results["count"] = (
            [],
            {"messages": {}, "refusals": {}, "sessions": 0, "unfinished": 0},
        )
        for request in ("quarantine.release", "count"):
            self.assertEqual(self.refusal(request).kind, Kind.USAGE)
            self.links.deliver()
            self.assertIn("drop", self.links.said[-1][2])
        self.assertTrue(all(each.over for each in self.links.listeners["a"]._asked.values()))

    # -- one message

    def test_show(self):
        """It is shown from where it is, content and all."""
        absent = ([], Refusal(Kind.ABSENT, "no message X in the quarantine"))
        content = [{"content": "x" * 30_000}] * 20
        self.answers("quarantine.show", a=absent, b=absent, c=(content, {"id": "X"}))
        items, done = self.asked("quarantine.show", id="X", full=True)
        self.assertEqual((items, done), (content, {"id": "X", "node": "c"}))
        self.answers("quarantine.show", a=([], {"id": "X"}))
        self.assertEqual(self.asked("quarantine.show", id="X")[1], {"id": "X", "node": "a"})

    def test_nobody_has_it(self):
        absent = ([], Refusal(Kind.ABSENT, "no message X in the quarantine"))
        self.answers("quarantine.show", a=absent, b=absent)
        self.links.cut("c")
        refusal = self.refusal("quarantine.show", id="X")
        self.assertEqual(
            (refusal.kind, str(refusal), refusal.details),
            (
                Kind.ABSENT,
                "no message X in the quarantine",
                ("c is not linked: it may have it.",),
            ),
        )
        self.b.results["quarantine.show"] = ([], Refusal(Kind.UNAVAILABLE, "not now"))
        self.assertEqual(self.refusal("quarantine.show", id="X").kind, Kind.ABSENT)
        refusal = self.refusal("quarantine.show", id="X", node="c")
        self.assertEqual((refusal.kind, str(refusal)), (Kind.UNAVAILABLE, "c is not linked"))

    def test_another_refusal_ends_it(self):
        full = ([], Refusal(Kind.USAGE, "no route"))
        absent = ([], Refusal(Kind.ABSENT, "no message"))
        self.answers("quarantine.forward", a=absent, b=full, c=([], {"copy": "Y"}))
        self.assertEqual(str(self.refusal("quarantine.forward", id="X")), "no route")
        self.assertEqual(self.c.asked, [])

    def test_cut_off_in_the_middle(self):
        """Half a message is not taken for one."""
        absent = ([], Refusal(Kind.ABSENT, "no message"))
        content = [{"content": "x" * 20_000}] * 3
        self.answers("quarantine.show", a=absent, b=(content, Deferred()), c=absent)
        asked = self.ask("quarantine.show", id="X", full=True)
        self.links.cut("b")
        self.links.deliver()
        refusal = self.failureResultOf(asked, Refusal).value
        self.assertEqual(str(refusal), "b has gone, in the middle of it")

    def test_an_error_there(self):
        """Its log has it; here it is a node that did not answer."""
        absent = ([], Refusal(Kind.ABSENT, "no message"))
        self.answers("why", a=absent, b=([], ZeroDivisionError()), c=([], {"kind": "message"}))
        _, done = self.asked("why", id="X")
        self.assertEqual(done, {"kind": "message", "node": "c"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # -- the history

    def test_trace(self):
        """The newest of all, each once, the newest last."""
        both = known(3, 30, "b")
        self.answers(
            "trace",
            a=([known(1, 10, "a"), both], {"found": 2, "unfinished": None}),
            b=([both, known(4, 40, "b")], {"found": 2, "unfinished": 25.0}),
            c=([known(2, 20, "c"), known(2, 20, "c", "refusal")], {"found": 2, "unfinished": 5}),
        )
        items, done = self.asked("trace", text="x")
        self.assertEqual([each["time"] for each in items], [10, 20, 20, 30, 40])
        self.assertEqual(done, {"found": 5, "unfinished": 25.0, "away": {}})
        items, done = self.asked("trace", text="x", limit=2)
        self.assertEqual([each["time"] for each in items], [30, 40])
        self.assertEqual(done["found"], 2)

    def test_trace_where_one_keeps_none(self):
        none = ([], Refusal(Kind.UNAVAILABLE, "no history is kept"))
        self.answers("trace", a=none, b=([known(1, 1, "b")], {"found": 1, "unfinished": None}))
        self.answers("trace", a=none, b=self.b.results["trace"], c=none)
        items, done = self.asked("trace")
        self.assertEqual(len(items), 1)
        self.assertEqual(
            done["away"], {"a": "says: no history is kept", "c": "says: no history is kept"}
        )
        self.answers("trace", a=none, b=none, c=none)
        refusal = self.refusal("trace")
        self.assertEqual(refusal.kind, Kind.UNAVAILABLE)
        self.assertIn("no history is kept", str(refusal))

    def test_count(self):
        """Of all together."""
        some = {"messages": {"accept": 2}, "refusals": {"rcpt": 1}, "sessions": 3}
        none = ([], Refusal(Kind.UNAVAILABLE, "no history is kept"))
        self.answers(
            "count",
            a=([], some | {"unfinished": 5.0}),
            b=([], some | {"messages": {"reject": 1, "accept": 1}, "unfinished": None}),
            c=none,
        )
        self.assertEqual(
            self.asked("count")[1],
            {
                "messages": {"accept": 3, "reject": 1},
                "refusals": {"rcpt": 2},
                "sessions": 6,
                "unfinished": 5.0,
                "away": {"c": "says: no history is kept"},
            },
        )
        self.assertEqual(self.refusal("count", node="c").kind, Kind.UNAVAILABLE)

    def test_one_history(self):
        """Who writes to the same is not asked to search it again."""
        for name in "de":
            node = self.nodes[name] = Node(self, name, common="url", known="de")
            node.everywhere.start(self.links.of(name))
        self.a = d = self.nodes["d"]
        nothing = {"found": 0, "unfinished": None}
        counted = {"messages": {}, "refusals": {}, "sessions": 1, "unfinished": None}
        for node in self.nodes.values():
            node.results["trace"] = ([], nothing)
            node.results["count"] = ([], counted)
            node.results["why"] = ([], Refusal(Kind.ABSENT, "unknown"))
        self.asked("trace")
        self.assertEqual(self.refusal("why", id="X").kind, Kind.ABSENT)
        self.assertEqual(self.asked("count")[1]["sessions"], 4)
        self.assertEqual([each[0] for each in d.asked], ["trace", "why", "count"])
        self.assertEqual(self.nodes["e"].asked, [])
        self.assertEqual(self.nodes["b"].asked[0], ("trace", {}, "u (uid 7) on d"))

    # -- peers

    def test_what_peers_may_not_ask(self):
        """The quarantine and the history, and nothing else."""
        question = self.links.listeners["b"].ask("a", "reload", {}, "x")
        self.links.deliver()
        refusal = self.failureResultOf(Deferred.fromCoroutine(question.next()), Refusal).value
        self.assertEqual(refusal.kind, Kind.USAGE)
        self.assertEqual(self.a.asked, [])

    def test_without_a_cluster(self):
        node = Node(self, "")
        node.results["trace"] = ([], {"found": 0, "unfinished": None})
        done = self.successResultOf(
            Deferred.fromCoroutine(node.everywhere.answer("trace", {"node": ""}, 7, None))
        )
        self.assertEqual(done, {"found": 0, "unfinished": None})
        self.assertEqual(node.asked, [("trace", {}, 7)])
        asked = Deferred.fromCoroutine(node.everywhere.answer("trace", {"node": "b"}, 7, None))
        self.assertEqual(self.failureResultOf(asked, Refusal).value.kind, Kind.USAGE)


class QuestionsTests(SynchronousTestCase):
    """Two nodes, line by line."""

    def setUp(self):
        self.clock = Clock()
        self.links = Links()
        self.produced = []
        self.a = Questions(self.clock, self.answer, 1)
        self.b = Questions(self.clock, self.answer, 1)
        self.a.start(self.links.of("a"))
        self.b.start(self.links.of("b"))
        self.items = []
        self.result = {}

    async def answer(self, request, arguments, who, send):
        self.produced.append(request)
        for item in self.items:
            await send(item)
        return await self.result if isinstance(self.result, Deferred) else self.result

    def next(self, question):
        taken = Deferred.fromCoroutine(question.next())
        self.links.deliver()
        return taken

    @given(
        st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=40_000)), max_size=6),
        st.dictionaries(st.text(max_size=5), st.integers()),
    )
    def test_what_is_said_is_heard(self, items, result):
        """Whatever it is, however long; no message is longer than a link takes."""
        self.items, self.result = items, result
        question = self.a.ask("b", "r", {}, "who")
        said = []
        while not question.over:
            said.append(self.successResultOf(self.next(question)))
        self.assertEqual(said, [*(("item", each) for each in items), ("done", result)])
        self.assertEqual(self.a._asked.keys(), {("b", question._number)})

    def test_begun_but_slow(self):
        """Who has begun has more time."""
        self.result = Deferred()
        question = self.a.ask("b", "r", {}, "who")
        taken = self.next(question)
        self.clock.advance(BEGIN + 1)
        self.assertNoResult(taken)
        self.result.callback({"x": 1})
        self.links.deliver()
        self.assertEqual(self.successResultOf(taken), ("done", {"x": 1}))

    def test_begun_and_silent(self):
        self.result = Deferred()
        taken = self.next(self.a.ask("b", "r", {}, "who"))
        self.clock.advance(PATIENCE)
        self.assertEqual(str(self.failureResultOf(taken, PeerAway).value), "does not answer")

    def test_nobody_takes_it(self):
        """An answer that is not taken is given up, and makes room."""
        self.items = [{"x": "y" * PIECE}] * 3
        for _ in range(MOST_OPEN):
            self.a.ask("b", "r", {}, "who")
        self.links.deliver()
        taken = self.next(self.a.ask("b", "r", {}, "who"))
        self.assertEqual(self.failureResultOf(taken, Refusal).value.kind, Kind.BUSY)
        self.clock.advance(PATIENCE)
        self.links.deliver()
        self.assertEqual(
            self.successResultOf(self.next(self.a.ask("b", "r", {}, "who")))[0], "item"
        )

    def test_dropped(self):
        """Then nothing more is produced."""
        self.items = [{"x": "y" * PIECE}] * 3
        question = self.a.ask("b", "r", {}, "who")
        self.successResultOf(self.next(question))
        question.drop()
        question.drop()
        self.links.deliver()
        self.assertEqual(self.b._answering, {})

    def test_no_room_in_the_link(self):
        """Then it is as if the peer were away."""
        self.links.full.add("b")
        taken = self.next(self.a.ask("b", "r", {}, "who"))
        self.assertEqual(
            str(self.failureResultOf(taken, PeerAway).value), "is not linked, or does not read"
        )
        self.links.full.clear()
        self.items = [{"x": "y" * PIECE}] * 2
        question = self.a.ask("b", "r", {}, "who")
        self.successResultOf(self.next(question))
        self.links.full.add("b")
        self.assertEqual(
            str(self.failureResultOf(self.next(question), PeerAway).value), "does not read"
        )
        self.links.full.clear()
        self.links.full.add("a")
        taken = self.next(self.a.ask("b", "r", {}, "who"))
        # Only the one before is open, whose drop was not told; its time is up soon.
        self.assertEqual([number for _, number in self.b._answering], [question._number])
        self.clock.advance(PATIENCE)
        self.assertEqual(self.b._answering, {})
        self.failureResultOf(taken, PeerAway)

    def test_too_long_a_question(self):
        taken = self.next(self.a.ask("b", "r", {"x": "y" * 70_000}, "who"))
        self.assertIn("too long", str(self.failureResultOf(taken, PeerAway).value))

    def test_an_endless_line(self):
        """Is not collected."""
        question = self.a.ask("b", "r", {}, "who")
        taken = Deferred.fromCoroutine(question.next())
        self.links.queue.clear()
        number = question._number
        for _ in range(LONGEST_LINE // 60_000):
            self.a.heard("b", {"piece": number, "text": "x" * 60_000})
        with self.assertRaises(RemoteFault):
            self.a.heard("b", {"piece": number, "text": "x" * 60_000})
        self.assertEqual(str(self.failureResultOf(taken, PeerAway).value), "says too much")

    def test_no_answer_at_all(self):
        question = self.a.ask("b", "r", {}, "who")
        self.links.queue.clear()
        self.a.heard("b", {"piece": question._number, "text": "nonsense\n"})
        taken = self.next(question)
        self.assertIn("JSON", str(self.failureResultOf(taken, PeerAway).value))

    def test_more_than_was_asked_for(self):
        question = self.a.ask("b", "r", {}, "who")
        piece = {"piece": question._number, "text": "x"}
        self.a.heard("b", piece)
        with self.assertRaises(RemoteFault):
            self.a.heard("b", piece)

    def test_what_makes_no_sense(self):
        """Is a RemoteFault, and does nothing."""
        question = {"ask": 1, "request": "r", "arguments": {}, "who": "w"}
        self.result = Deferred()
        self.a.heard("b", question)
        for body in (
            {},
            {"what": 1},
            question,
            question | {"ask": True},
            question | {"ask": -1},
            question | {"ask": 1 << 60},
            question | {"ask": 2, "request": 1},
            question | {"ask": 2, "request": "r" * 100},
            question | {"ask": 2, "arguments": []},
            question | {"ask": 2, "who": None},
            question | {"ask": 2, "who": "w" * 1000},
            {"more": "x"},
            {"piece": 0.5},
        ):
            with self.assertRaises(RemoteFault, msg=str(body)):
                self.a.heard("b", body)
        self.assertEqual(self.produced, ["r"])
        # What is of a question that is over is none of ours any more.
        for body in ({"more": 9}, {"drop": 9}, {"begun": 9}, {"piece": 9}, {"broken": 9}):
            self.a.heard("b", body)
        mine = self.a.ask("b", "r", {}, "who")
        with self.assertRaises(RemoteFault):
            self.a.heard("b", {"piece": mine._number, "text": 7})

    @given(st.dictionaries(
        st.sampled_from(["ask", "more", "drop", "begun", "piece", "broken", "text", "request",
                         "arguments", "who", "x"]),
        st.one_of(st.none(), st.integers(-1, 3), st.text(max_size=3), st.just({}), st.floats()),
    ))  # fmt: skip
    def test_only_the_documented_error(self, body):
        self.a.ask("b", "r", {}, "who")
        with contextlib.suppress(RemoteFault):
            self.a.heard("b", body)
        self.links.queue.clear()


class WiringTests(SynchronousTestCase):
    """:class:`Requests` asks the nodes that its cluster knows."""

    def test_nodes_of_the_cluster(self):
        clock, links = Clock(), Links()
        world = InlineWorld(clock, clock, lambda: NOON, random.Random(1), None)
        cluster = FakeCluster()
        found = cluster.report()
        ours = found["node"]
        others = sorted(each["node"] for each in found["nodes"] if each["node"] != ours)
        requests = Requests(
            world,
            replace(
                desk(None, FakeScheduler()),
                cluster=cluster,
                node=ours,
                line=lambda: links.of(ours),
            ),
        )
        requests.start()
        self.assertIn(ours, links.listeners)
        refusal = self.failureResultOf(
            Deferred.fromCoroutine(requests.answer("trace", {"node": "?"}, 0, None)), Refusal
        ).value
        self.assertEqual(str(refusal), f"no node '?': there are {', '.join((ours, *others))}")
