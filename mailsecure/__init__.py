"""mailsecure: an integrated SMTP security gateway on Twisted.

The rooms, from the bottom up, and what each may import, are drawn in
``docs/architecture.rst``; ``assemble.py`` shows the whole object graph on one
screen and ``tap.py`` is the face that ``twistd`` sees.
"""

__version__ = "0.1.0"
