"""Runs the command `sae-checks` as `python -m sae_checks`."""

import sys

from sae_checks.commands.main import main

sys.exit(main())
