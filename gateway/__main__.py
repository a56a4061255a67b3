"""`python -m gateway` is the command `wardlink`."""

import sys

from gateway.cli import main

sys.exit(main())
