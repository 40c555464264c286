"""What servers and clients of the chat agree on: message numbers, and how a message says which it is."""

from __future__ import annotations

import struct

__all__ = ["FRAME", "HEARD", "SAID", "TEXT", "WELCOME"]

SAID, HEARD, WELCOME = 1, 2, 3
"""From a client; to all; to who has connected: the server's member_id."""

FRAME = struct.Struct("<iI")
"""Before each value: its message number and its length."""

TEXT = struct.Struct("<II40x")
"""The sender, which is a connection, and the number of what it says, from 1 on; and some padding."""
