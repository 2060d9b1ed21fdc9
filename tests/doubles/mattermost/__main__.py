"""``python -m tests.doubles.mattermost --port 8065 [--hook ID]``: the stand-in as a process."""

import argparse
import asyncio
import signal

from .server import RunningMattermost, listen, make_server
from .state import DEFAULT_HOOK_ID, State


async def _serve(port: int, hook_id: str) -> None:
    state = State(hook_id=hook_id)
    server = make_server(state)
    with listen(port) as listener:
        running = RunningMattermost(f"http://127.0.0.1:{listener.getsockname()[1]}", state)

        def stop() -> None:
            server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        print(f"Mattermost stand-in: {running.url}/", flush=True)
        print(f"Incoming webhook: {running.hook_url}", flush=True)
        print(f"Bot token: {state.bot_token}", flush=True)
        await server.serve(sockets=[listener])


def main() -> None:
    """Read the arguments and serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.mattermost")
    parser.add_argument("--port", type=int, default=8065, help="port of 127.0.0.1; 0 is any free")
    parser.add_argument("--hook", default=DEFAULT_HOOK_ID, help="id of the incoming webhook")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, arguments.hook))


if __name__ == "__main__":
    main()
