"""``python -m samrt`` is the ``samrt`` command."""

from __future__ import annotations

import sys

from samrt.cli import main

if __name__ == "__main__":
    sys.exit(main())
