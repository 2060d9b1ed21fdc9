"""The doubles' HTTP server."""

import gc
import socket
import threading
import time
import warnings

from tests.doubles.http_server import Answer, HttpServer


def test_a_server_that_stops_while_clients_come_leaves_no_socket_open() -> None:
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(3):
            server = Silent()
            server.start()
            clients = [threading.Thread(target=come, args=(server.port,)) for _ in range(2)]
            for client in clients:
                client.start()
            while len(server.connections) < 20:
                time.sleep(0.001)
            server.stop()
            for client in clients:
                client.join()
            assert server.connections == set()
            del server
        gc.collect()
    assert [str(one.message) for one in left] == []


class Silent(HttpServer):
    async def answer(self, *_: object) -> Answer | None:
        raise AssertionError("nobody asks for anything")


def come(port: int) -> None:
    """Connects until nobody listens, and sends what is no whole request."""
    opened: list[socket.socket] = []
    try:
        while True:
            opened.append(socket.create_connection(("127.0.0.1", port), 5))
            opened[-1].send(b"GET / HTTP/1.1\r\n")
    except OSError:
        pass
    for one in opened:
        one.close()
