"""A server's numbers over HTTP: a live page for people, JSON and Prometheus' form for programs."""

from tao.monitor.monitor import Monitor, monitor_on

__all__ = ["Monitor", "monitor_on"]
