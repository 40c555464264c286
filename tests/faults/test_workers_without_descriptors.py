"""A worker that has nothing to do for the first time needs two descriptors: it must do without them."""

from __future__ import annotations

import logging

import pytest

from tests.faults.support import INLINE, POOLED, Watched, check_alive
from tests.support import LOCAL, Peer, no_descriptors_left


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_that_run_out_of_work_and_of_descriptors(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them, once; they serve on, during the shortage and after it."""
    watched = Watched(worker_size=workers)
    with watched.server.running(LOCAL) as address, Peer(address) as peer:
        peer.send_frame(INLINE, b"in")
        assert peer.receive_frame() == (POOLED, b"in")
        with no_descriptors_left():
            for number in range(2 * workers):
                peer.send_frame(POOLED, b"%d" % number)
                assert peer.receive_frame() == (POOLED, b"%d" % number)
        check_alive(peer)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
