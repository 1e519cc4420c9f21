"""`python -m ah_cli`, and the entry point of `ah`."""

import sys

from ah_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
