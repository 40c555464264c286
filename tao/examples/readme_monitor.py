import sys

from tao import monitor_on
from tao.examples.echo import make_server


def main() -> None:
    server = make_server()
    host, port = server.listen(("127.0.0.1", int(sys.argv[1])))
    with monitor_on(int(sys.argv[2])) as monitor:
        monitor.add("echo", server.metrics)
        print(f"listening on {host}:{port}, watched at {monitor.address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
