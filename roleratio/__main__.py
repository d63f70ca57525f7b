"""`python -m roleratio`: the same as the console script."""

import sys

from roleratio.cli import main

sys.exit(main())
