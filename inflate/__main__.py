"""``python -m inflate`` is the same program as ``inflate``."""

from inflate.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
