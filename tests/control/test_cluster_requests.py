"""Proves who may ask what of the cluster, over the socket's requests."""

import math
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control import cluster_requests
from mailsecure.control.cluster_requests import LONGEST_MOVE, MOST_WEIGHT, ClusterRequests
from mailsecure.control.requests import Requests
from mailsecure.control.wire import Kind, Refusal

from .fakes import FakeCluster, desk, group, world


class ClusterRequestsTests(SynchronousTestCase):
    """:class:`ClusterRequests` over a fake cluster."""

    def setUp(self):
        self.cluster = FakeCluster(groups=[group(), group("web")])
        self.requests = ClusterRequests(self.cluster)
        self.logged = []
        log = mock.Mock(info=lambda text, **fields: self.logged.append((text, fields)))
        self.patch(cluster_requests, "_log", log)

    def refusal(self, request, uid=0, **arguments):
        return self.assertRaises(Refusal, self.requests.answer, request, arguments, uid)

    def test_status(self):
        found = self.requests.answer("cluster.status", {}, 0)
        self.assertEqual(found, self.cluster.said | {"balance": None})
        self.assertEqual(self.logged, [])

    def test_balance(self):
        requests = ClusterRequests(self.cluster, lambda: {"nodes": {}})
        self.assertEqual(requests.answer("cluster.status", {}, 0)["balance"], {"nodes": {}})

    def test_moves(self):
        for verb, said in (
            ("resign", "mx1 resigns as Master of mail"),
            ("takeover", "mx1 is Master of mail"),
        ):
            done = self.requests.answer(f"cluster.{verb}", {"group": "mail", "seconds": 600}, 7)
            self.assertEqual(done, {"lines": [said]})
            self.requests.answer(f"cluster.{verb}", {"seconds": LONGEST_MOVE}, 7)
            self.requests.answer(f"cluster.{verb}", {"group": "", "seconds": 0.5}, 7)
            self.assertEqual(
                self.cluster.calls,
                [(verb, "mail", 600.0), (verb, None, float(LONGEST_MOVE)), (verb, None, 0.5)],
            )
            self.cluster.calls.clear()

    def test_moves_are_logged_with_who(self):
        self.requests.answer("cluster.resign", {"group": "web", "seconds": 60}, 4711)
        self.requests.answer("cluster.takeover", {"seconds": 60}, 4711)
        told = [(f["action"], f["group"], f["seconds"], f["uid"]) for _, f in self.logged]
        self.assertEqual(told, [("resign", "web", 60, 4711), ("takeover", "all groups", 60, 4711)])
        for text, fields in self.logged:
            self.assertIn("by uid 4711", text.format(**fields))

    def test_weight(self):
        for weight, said in (
            (5, "mx2: weight 5 on all nodes, instead of its own 100"),
            (0, "mx2: weight 0 on all nodes, instead of its own 100"),
            (None, "mx2: its own weight, 100, counts again"),
        ):
            done = self.requests.answer("cluster.weight", {"node": "mx2", "weight": weight}, 7)
            self.assertEqual(done, {"lines": [said]})
            self.assertEqual(self.cluster.calls.pop(), ("weight", "mx2", weight))
        told = [(fields["weight"], fields["uid"]) for _, fields in self.logged]
        self.assertEqual(told, [(5, 7), (0, 7), ("its own", 7)])

    def test_weights_that_are_none(self):
        for weight in (-1, 1.5, True, "5", MOST_WEIGHT + 1):
            refusal = self.refusal("cluster.weight", node="mx2", weight=weight)
            self.assertEqual(refusal.kind, Kind.USAGE)
        self.assertEqual(self.refusal("cluster.weight", weight=1).kind, Kind.USAGE)
        refusal = self.refusal("cluster.weight", node="mx9", weight=1)
        self.assertEqual((refusal.kind, str(refusal)), (Kind.ABSENT, "there is no node 'mx9'"))
        self.assertEqual(refusal.details, ("there are: mx1, mx2",))
        self.assertEqual(self.cluster.calls + self.logged, [])

    def test_a_group_that_is_not_there(self):
        refusal = self.refusal("cluster.resign", group="mial" * 50, seconds=60)
        self.assertEqual(refusal.kind, Kind.ABSENT)
        self.assertEqual(str(refusal), f"there is no virtual group {'mial' * 10!r}")
        self.assertEqual(refusal.details, ("there are: mail, web",))
        self.assertEqual(self.cluster.calls + self.logged, [])

    def test_no_groups_at_all(self):
        self.cluster.said["groups"] = []
        refusal = self.refusal("cluster.takeover", group="mail", seconds=60)
        self.assertEqual(refusal.kind, Kind.ABSENT)
        self.assertEqual(refusal.details, ("there are none on this node",))
        for verb, words in (("resign", "resign from"), ("takeover", "take over")):
            refusal = self.refusal(f"cluster.{verb}", seconds=60)
            self.assertEqual(refusal.kind, Kind.ABSENT)
            self.assertEqual(str(refusal), f"there is nothing to {words}: no virtual groups")
        self.assertEqual(self.cluster.calls, [])

    def test_bad_arguments_move_nothing(self):
        for request, arguments in (
            ("cluster.status", {"x": 1}),
            ("cluster.resign", {"grp": "mail", "seconds": 60}),
            ("cluster.resign", {"group": ["mail"], "seconds": 60}),
            ("cluster.resign", {"group": None, "seconds": 60}),
            ("cluster.resign", {"group": "mail"}),
            ("cluster.resign", {"seconds": "60"}),
            ("cluster.resign", {"seconds": True}),
            ("cluster.resign", {"seconds": 0}),
            ("cluster.resign", {"seconds": -1}),
            ("cluster.takeover", {"seconds": LONGEST_MOVE + 1}),
            ("cluster.takeover", {"seconds": math.nan}),
            ("cluster.takeover", {"seconds": math.inf}),
            ("cluster.explode", {}),
            ("cluster.", {}),
        ):
            refusal = self.refusal(request, **arguments)
            self.assertEqual(refusal.kind, Kind.USAGE, (request, arguments))
        self.assertEqual(self.cluster.calls + self.logged, [])

    def test_no_cluster(self):
        self.requests = ClusterRequests(None)
        for verb in ("status", "resign", "takeover"):
            refusal = self.refusal(f"cluster.{verb}", seconds=60)
            self.assertEqual(refusal.kind, Kind.UNAVAILABLE)
            self.assertIn("in no cluster: [cluster] key_file is not set", str(refusal))


class RequestsTests(SynchronousTestCase):
    """:class:`Requests` hands over what is the cluster's."""

    def answer(self, request, cluster, **arguments):
        requests = Requests(world(Clock()), desk(cluster=cluster))
        return Deferred.fromCoroutine(requests.answer(request, arguments, 0, None))

    def test_with_and_without(self):
        cluster = FakeCluster()
        found = self.successResultOf(self.answer("cluster.status", cluster))
        self.assertEqual(found, cluster.said | {"balance": None})
        refusal = self.failureResultOf(self.answer("cluster.status", None), Refusal).value
        self.assertEqual(refusal.kind, Kind.UNAVAILABLE)
        refusal = self.failureResultOf(self.answer("cluster.explode", None), Refusal).value
        self.assertEqual(str(refusal), "no such request: 'cluster.explode'")
