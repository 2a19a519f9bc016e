"""`python -m console.tui URL TOKEN`, as AI Gateway documents it: Stellwerk's console."""

import sys

from stellwerk.tui.main import main

if __name__ == "__main__":
    sys.exit(main())
