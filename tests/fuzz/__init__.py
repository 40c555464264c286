"""Fuzzers: arbitrary streams, in arbitrary pieces, against a reference that is read in a minute.

Contents:

    reference.py      the wire formats once more, for one purpose: to be obviously right
    codec_input.py    each codec against the reference: whole, in pieces, damaged, there and back
    server_input.py   the same streams into a server over a real socket: answers, reasons, nobody else hurt
    targets.py        what can be fuzzed, and one round of it

The suite runs a short round of each (`test_fuzz.py`). `python -m tests.fuzz --minutes N` goes on for
longer; what it finds, it shows with the seed that replays it.
"""
