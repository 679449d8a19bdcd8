"""``python -m wsltool``."""

from wsltool.cli import main

if __name__ == "__main__":
    main()
