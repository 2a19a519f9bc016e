"""`python -m stellwerk` is the command `stellwerk`."""

from stellwerk.cli.main import main

if __name__ == "__main__":
    main()
