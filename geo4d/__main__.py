"""``python -m geo4d`` is the command ``geo4d``."""

import sys

from geo4d.apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
