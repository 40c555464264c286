"""Benchmarks: the framework beside its alternatives, in one run, as ratios.

Contents:

    generator/          the load generator, in C
    load.py             what compiles and runs it
    tls.py              what TLS needs besides: a generator with it, certificates
    open_connections.py connections that are open and idle
    peers/              one server program per module
    peer.py             what names a server program and its options
    server_process.py   one running server: its port, its processor time, its end
    processors.py       which processor the server and the load get
    readers.py          many clients that only read
    workload.py         a workload as data: peers, cases, columns, how one sample is taken
    echo.py             the peers, columns and sample of every workload that echoes
    timers.py           the same of those that measure time-outs
    broadcast.py        the same of the one that broadcasts
    workloads/          one workload per module; a new module is found by itself
    rounds.py           interleaved rounds of one workload
    results.py          samples, medians, ratios
    provenance.py       the machine, the versions, the command: where figures come from
    report.py           tables and JSON
    chart.py            the chart, from that JSON
    targets.py          the ratios that ``--check`` holds

Run with ``python -m tests.bench [WORKLOAD...]``; ``'*'`` runs all of them, ``--check`` judges the
targets. Linux only: the load generator uses epoll. Peers come with the extra ``bench``; TLS needs
OpenSSL's headers besides. What is missing is skipped, and said to be.
"""
