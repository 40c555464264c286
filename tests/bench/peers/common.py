"""What every peer does beside serving: options, processor, resources, telling its port."""

import argparse
import ctypes
import os
import resource
import signal

HOST = "127.0.0.1"
BACKLOG = 4096
PR_SET_PDEATHSIG = 1  # prctl(2)


def peer_parser(name: str) -> argparse.ArgumentParser:
    """A parser with the options that all peers have."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.bench.peers.{name}")
    parser.add_argument("--cpu", type=int, help="the processor to stay on")
    return parser


def prepare_process(cpu: int | None) -> None:
    """Pin the process, allow it all its descriptors, and tie its life to its parent's.

    Comes before any thread is started: threads inherit the processor they may use.
    """
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # A benchmark that is killed outright cannot end its servers.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def announce(port: int) -> None:
    """Tell the benchmark that the server listens."""
    print(port, flush=True)
