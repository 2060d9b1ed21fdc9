"""Free ports for servers that are told their port before they start."""

import itertools
import os
import random
import socket

# Below what Linux gives to outgoing connections (32768 on), so that no connection takes a port between
# its choice and its use; and a slice for each worker of a parallel run, so that no other test does.
_FIRST, _SLICE = 10_000, 2_000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 11
_start = random.Random(os.getpid()).randrange(_SLICE)
_candidates = (_FIRST + _worker * _SLICE + (_start + step) % _SLICE for step in itertools.count())


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, another one with every call."""
    for port in itertools.islice(_candidates, _SLICE):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    message = f"no free port among {_SLICE} from {_FIRST + _worker * _SLICE} on"
    raise OSError(message)
