"""tao.server_conn: what only a server's connection has; the rest is in test_conn, other servers in
test_backplane."""

from __future__ import annotations

from tao import ServerConn
from tests.tao.crowd import crowd


def test_its_name_is_its_servers_and_its_own() -> None:
    with crowd() as these:
        (_, one), (_, other) = these.join(), these.join()
        assert isinstance(one, ServerConn)
        assert one.cluster_id == f"{these.server.member_id}-{one.net_id}"
        assert one.cluster_id != other.cluster_id
