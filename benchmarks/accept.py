"""How fast mail is taken and made durable, nothing being delivered meanwhile.

``python -m benchmarks.accept [--quick]``.  Ours routes to a port where nobody listens
(one refused connection, then the hop is left alone), Postfix puts each message on hold,
Haraka's outbound is disabled: in all of them the message is on disk before the 250.
"""

from .sidebyside import main

if __name__ == "__main__":
    main("accept: taken and durable, not delivered", relay=False)
