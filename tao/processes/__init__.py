"""One service on several processes: what `tao serve` does.

A parent, the Supervisor, holds the listening sockets and never imports the application. Each worker is a
fresh interpreter (`tao.processes.worker`) that inherits them, imports the application and serves. So a
reload runs new code, and the sockets outlive every worker: a connection that waits to be accepted when
its worker ends is accepted by the next one.
"""

from tao.processes.listeners import Listeners
from tao.processes.order import Order
from tao.processes.supervisor import Plan, Supervisor
from tao.processes.systemd import Activation, Notifier

__all__ = ["Activation", "Listeners", "Notifier", "Order", "Plan", "Supervisor"]
