"""``python -m overflight`` is the command line."""

from overflight.cli import main

main()
