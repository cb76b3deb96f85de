"""Ports of this machine that nothing listens on."""

import contextlib
import socket


def free_ports(n: int) -> list[int]:
    """Return n different ports that the system gave: no two test processes get the same ones."""
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(n)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]
