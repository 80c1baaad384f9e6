"""``python -m paper_figures`` is ``vpt-analysis figures``."""

import sys

from vpt_analysis.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", *sys.argv[1:]]))
