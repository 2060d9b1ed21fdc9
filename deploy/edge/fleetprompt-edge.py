"""The standalone program's beginning: PyInstaller wants a script, not an entry point."""

import sys

from fleetprompt_edge.cli import main

sys.exit(main())
