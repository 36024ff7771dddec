"""Connections at a listener that processes share."""

import asyncio
import socket
from threading import Event

import pytest

from app.scoreboard import Scoreboard
from app.server.accepting import Acceptor, refuse_new


def test_a_listener_that_refuses_new_connections_keeps_those_that_were_made():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, timeout=60) as made:
            made.sendall(b"sent before it was accepted")
            refuse_new(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.1)
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(100) == b"sent before it was accepted"
                made.sendall(b"sent afterwards")
                assert accepted.recv(100) == b"sent afterwards"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=60)


@pytest.mark.parametrize("leave_rest", [False, True])
def test_connections_that_wait_when_it_stops_are_accepted_or_left_to_other_processes(leave_rest):
    made = Event()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set()
            transport.close()

    async def stop(listener: socket.socket) -> None:
        acceptor = Acceptor(listener, Protocol, Scoreboard())
        acceptor.start()
        acceptor.stop(leave_rest=leave_rest)
        acceptor.stop(leave_rest=leave_rest)
        for _ in range(10):
            await asyncio.sleep(0)

    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        with socket.create_connection(other.getsockname()):
            asyncio.run(stop(other.dup()))
            assert made.is_set() is not leave_rest
            if leave_rest:
                other.accept()[0].close()
