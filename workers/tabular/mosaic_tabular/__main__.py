"""`python -m mosaic_tabular`."""

import sys

from mosaic_tabular.cli import main

if __name__ == "__main__":
    sys.exit(main())
