"""How fast mail goes through: from the first connection until the sink has it all.

``python -m benchmarks.relay [--quick]``.  The sink is Postfix's smtp-sink for everyone.
"""

from .sidebyside import main

if __name__ == "__main__":
    main("relay: taken, durable, and delivered to a sink", relay=True)
