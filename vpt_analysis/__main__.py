"""``python -m vpt_analysis`` is the ``vpt-analysis`` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
