"""What is read at a scrape."""

import os
import socket

from app.service_metrics import connections_at


def test_open_connections_to_a_port_are_those_of_the_process_that_accepted_them():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        port, pids = listener.getsockname()[1], {0: os.getpid(), 3: os.getppid()}
        assert connections_at(port, pids) == {0: 0, 3: 0}
        clients = [socket.create_connection(each.getsockname()) for each in (listener, listener, other)]
        served = [each.accept()[0] for each in (listener, listener, other)]
        assert connections_at(port, pids) == {0: 2, 3: 0}
        for each in (*clients, *served):
            each.close()
        assert connections_at(port, pids) == {0: 0, 3: 0}


def test_a_process_that_has_ended_has_no_connections():
    assert connections_at(1, {0: 2**22 + 1}) == {0: 0}  # above the highest id
