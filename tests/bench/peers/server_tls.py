"""TLS for the peers: the option, and a context as the standard library advises it."""

import argparse
import ssl
from pathlib import Path


def add_tls_option(parser: argparse.ArgumentParser) -> None:
    """`--tls`, a file; without it nothing is encrypted."""
    parser.add_argument("--tls", type=Path, metavar="FILE", help="key and certificate, PEM")


def tls_context(certificate_file: Path | None) -> ssl.SSLContext | None:
    """For `create_server`; None if there is no file."""
    if certificate_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate_file)
    return context
