"""Servers and clients under everything that a seed can think of, and what must hold in every run.

Contents: ledger (what was written, handled and told, and whether it adds up), scenario (what happens in a
run), books (what waits in vain, or is counted wrongly, while nobody can run), planting and defects (what
the runs must find), processor (where they run), `python -m tests.simulate` (many runs).
"""
