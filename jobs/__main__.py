"""``python -m saccade.jobs``: the command line where no ``saccade`` command is installed."""

from saccade.jobs.cli import main

if __name__ == "__main__":
    main()
