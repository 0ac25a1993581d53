"""Measurements beside the peers; see README.rst."""
