"""A server and a client in a Qt program; one with windows makes a QApplication and does the same."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QTimer

from reactor import Reactor
from reactor.embed.qt import attach
from tao.examples._embedded import Conversation


def main() -> None:
    """Echo while a timer of Qt's says the sentences."""
    application = QCoreApplication([])
    reactor = Reactor()
    conversation = Conversation(reactor, application.quit)
    timer = QTimer()
    timer.timeout.connect(conversation.go_on)
    timer.start(50)
    with attach(reactor):
        application.exec()
    conversation.end()


if __name__ == "__main__":
    main()
