"""`python -m sae_checks` is `sae-checks`."""

import sys

from sae_checks.commands.main import main

sys.exit(main())
