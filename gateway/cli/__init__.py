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
    show.py  tables.py  progress.py    what it looks like
    output.py  interrupts.py    standard output that is gone, Ctrl-C while something starts

Rule: a command ends in what was asked for, or in one line ``error: ...`` and exit code 2. What it needs is
imported when it runs, because a serving process passes through here and keeps what was loaded.
"""

import sys


def main() -> None:
    """Run the command that the process was started with, and exit."""
    try:
        code = _run()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _run() -> int:
    from gateway.cli.interrupts import importing

    with importing():
        import warnings
        from contextlib import suppress

        from gateway.cli.commands import run
        from gateway.cli.output import OutputLost, prepare
    prepare()
    # Ctrl-C may come between a coroutine and the loop that was to run it.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    code = run(sys.argv[1:])
    with suppress(OutputLost):  # of what was printed before something else went wrong, which was said
        sys.stdout.flush()
    return code
