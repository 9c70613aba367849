"""`python -m sae_checks` is `sae-checks`."""

import sys

from sae_checks.cli import main

sys.exit(main())
