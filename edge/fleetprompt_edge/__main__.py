"""``python -m fleetprompt_edge`` is the command ``fleetprompt-edge``."""

import sys

from fleetprompt_edge.cli import main

sys.exit(main())
