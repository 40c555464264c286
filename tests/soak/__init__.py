"""The soak: a mixed load with faults, for as long as one likes, in which nothing may grow or get lost.

Contents:

    tally.py        what has happened so far, and what was found
    gauges.py       memory, descriptors, threads; and whether they grow
    services.py     the servers under load, and what they are checked for
    actors.py       the clients, good and bad, each with what it expects
    rounds.py       the actors at work, again and again, and a look at everything in between

Run with `python -m tests.soak --minutes N`. All of it is one process on the loopback, so that it uses one
core at the most, and every client pauses between its conversations.
"""
