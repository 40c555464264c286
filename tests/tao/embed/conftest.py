from tests.reactor.embed.fixtures import host, host_name, reactor

__all__ = ["host", "host_name", "reactor"]
