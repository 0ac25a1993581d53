"""Judging mail: checks find symbols, symbols make a verdict.

:mod:`.values` are what checks are told and what they find, :mod:`.api` how a check is made
and found, :mod:`.verdict` what is done with all of it, :mod:`.pipeline` runs it.  The
checks are in :mod:`.checks`, the scanners that we ask in :mod:`.engines`, the processes
that take messages apart in :mod:`.workers`.
"""
