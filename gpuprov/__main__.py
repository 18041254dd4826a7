"""`python -m gpuprov` is the same as `gpuprov`."""

import sys

from gpuprov.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
