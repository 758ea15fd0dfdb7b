"""The page: ``python app.py``, or ``inflate app``. Needs the ``app`` extra: pip install 'inflate-video[app]'."""

from inflate.cli.app import main

if __name__ == "__main__":
    import sys

    raise SystemExit(main(["app", *sys.argv[1:]]))
