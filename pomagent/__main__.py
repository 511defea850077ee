"""``python -m pomagent`` and the ``pomagent`` script."""

from pomagent.cli import main

if __name__ == "__main__":
    main()
