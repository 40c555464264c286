"""Echo servers to measure, one per module, each written as its own best practice has it.

A peer is run in a process of its own, ``python -m tests.bench.peers.NAME``: it listens on a free
port of 127.0.0.1, prints the port on the first line of its output, and serves until SIGTERM.
"""
