"""``fleetprompt up``: the whole platform on one machine."""

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from fleetprompt.cli.support import print_json, print_table
from fleetprompt.errors import FleetPromptError
from fleetprompt.runtime.embedded import EmbeddedPostgresError
from fleetprompt.runtime.platform import Platform, running_platform
from fleetprompt.runtime.ports import PortTakenError
from fleetprompt.runtime.state_lock import AlreadyRunningError
from fleetprompt.runtime.supervisor import SupervisorError
from fleetprompt.secrets import redact
from fleetprompt.settings import get_settings

app = typer.Typer(add_completion=False)
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Leave the running block, once: further signals do not cut the clean stop short."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@app.command()
def up(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON line of URLs and process ids when ready.")
    ] = False,
) -> None:
    """Run the whole platform on this machine until Ctrl-C.

    PostgreSQL (embedded, unless FLEETPROMPT_DATABASE_URL is set), migrations, API, Dagster's code
    server, webserver and daemon. Logs go to standard error. Exit code 0 after a stop that was
    asked for, 1 if something could not be started or kept alive.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, _stop)
    try:
        with running_platform(get_settings()) as platform:
            _announce(platform, as_json)
            platform.wait()
    except KeyboardInterrupt:
        return
    except (
        FleetPromptError,
        EmbeddedPostgresError,
        PortTakenError,
        AlreadyRunningError,
        SupervisorError,
        OSError,
    ) as error:
        print(f"error: {redact(str(error))}", file=sys.stderr)
        raise typer.Exit(1) from None


def _announce(platform: Platform, as_json: bool) -> None:
    if as_json:
        print_json(platform.describe())
    else:
        print_table(
            "FleetPrompt is up; Ctrl-C stops it",
            ["", ""],
            [[name, url] for name, url in platform.urls.items()],
        )
    sys.stdout.flush()
