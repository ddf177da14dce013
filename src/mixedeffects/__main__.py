"""``python -m mixedeffects`` is the command line."""

import sys

from mixedeffects.cli import main

sys.exit(main())
