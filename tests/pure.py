"""The pure modules, read from the import contract in setup.cfg, and the tests that cover them.

``python -m tests.pure`` prints the modules' files, for coverage's gate; ``python -m
tests.pure tests`` prints the tests, which may be no others: that a daemon happens to pass
through a branch proves nothing of it.
"""

from __future__ import annotations

import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent

_TESTS = """
    tests.smtp tests.gateway tests.delivery tests.config tests.control tests.spool
    tests.records.test_lines tests.records.test_networks tests.records.test_rows
    tests.records.test_spelling
    tests.cluster.test_election tests.cluster.test_hello tests.cluster.test_keys
    tests.cluster.test_linkframes tests.cluster.test_membership tests.cluster.test_moved
    tests.cluster.test_overrides tests.vip
    tests.balancer tests.proxyproto tests.scan
    tests.test_units tests.test_errors tests.test_resolver
"""


def pure_files() -> list[str]:
    """Return the pure modules' files, relative to the root."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    names = parser["importlinter:contract:pure"]["source_modules"].split()
    return [name.replace(".", "/") + ".py" for name in names]


def pure_tests() -> list[str]:
    """Return the packages and modules of tests that must run all branches of those."""
    return _TESTS.split()


if __name__ == "__main__":
    print(" ".join(pure_tests()) if sys.argv[1:] == ["tests"] else ",".join(pure_files()))
