"""`serve_forever` where the server is being served already: refused, and nothing is changed by it."""

from __future__ import annotations

import pytest

from reactor import ReactorError
from tao import Context, MessageRegistry, Server, TaoError, WriteCloser
from tests.faults.support import Watched, check_alive
from tests.support import LOCAL, Calls, Peer, Sample, as_bytes


def test_by_another_thread() -> None:
    """The connections go on, and the stop that comes later is in good order."""
    watched = Watched()
    with watched.server.running(LOCAL) as address:
        with Peer(address) as peer:
            check_alive(peer)
            with pytest.raises((ReactorError, TaoError)):
                watched.server.serve_forever()
            check_alive(peer)
            with Peer(address) as newcomer:
                check_alive(newcomer)
        report = watched.server.stop()
        assert (report.finished, report.aborted) == (True, 0)
        with pytest.raises(ConnectionError):
            Peer(address)


@pytest.mark.parametrize("inline", [False, True], ids=["pooled", "inline"])
def test_by_a_handler(inline: bool) -> None:
    raised: Calls[BaseException] = Calls()
    registry = MessageRegistry()

    def serve(context: Context[bytes], _conn: WriteCloser) -> Sample:
        try:
            server.serve_forever()
        except (ReactorError, TaoError) as error:
            raised.add(error)
        return Sample(1, context.message)

    registry.register(1, as_bytes, serve, inline=inline)
    server = Server(registry=registry)
    with server.running(LOCAL) as address:
        with Peer(address) as peer:
            for number in range(2):
                peer.send_frame(1, b"%d" % number)
                assert peer.receive_frame() == (1, b"%d" % number)
        assert len(raised) == 2
        report = server.stop()
        assert (report.finished, report.aborted) == (True, 0)
