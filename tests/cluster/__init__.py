"""A chat of several server processes through a real Redis, while something is killed, frozen and stopped.

    python -m tests.cluster

Four servers on two ports, two hundred clients who number what they say. Every client that stays connected
is to hear every message exactly once and in each sender's order: while a server is killed and started
again, while Redis is frozen, and while Redis is killed and comes back empty. What is lost then, the servers
have reported.

The servers are programs of their own (`tests.cluster.chat_server`), the clients know the wire format and
nothing of the code under test (`tests.cluster.clients`), and `tests.cluster.judge` compares who heard what.
"""
