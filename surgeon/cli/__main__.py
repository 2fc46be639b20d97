"""``python -m surgeon.cli``: the command, for launchers that start modules."""

from surgeon.cli import main

if __name__ == "__main__":
    main()
