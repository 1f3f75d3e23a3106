"""The command line, ``modal-gateway``.

    commands.py  every command, with the options of most
    key_commands.py  container_commands.py    those of the others
    options.py   options that several have
    sources.py   where the configuration comes from, and who may call
    address.py   where a command listens
    serving.py   serve, and the workers it starts
    demo.py      the demo and its model container
    check.py  render.py  keys.py  schema.py  conformance.py    one command each
    deployments.py  deploy, add, backend
    simulate.py  the simulated edge, and the app behind it
    warm.py      waking a model
    usage.py     what was used
    show.py      what it looks like

Rule: a command ends in what was asked for, or in one line ``error: ...`` and exit code 2. What it needs is
imported when it runs, because a serving process passes through here and keeps what was loaded.
"""

import sys
from io import TextIOWrapper


def main() -> None:
    """Run the command that the process was started with, and exit."""
    from gateway.cli.commands import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot show a character shows its code
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
