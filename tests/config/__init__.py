"""Tests of the ini file: read, checked, compared, explained."""
