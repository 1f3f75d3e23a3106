"""Ask an endpoint of the prompt contract what it can do, and which configuration fits it.

    client.py    requests over httpx, bounded
    reading.py   what came back: framing, text, facts
    fit.py       what is known of the endpoint, as keys of the configuration
    subject.py   the endpoint as the checks see it
    meeting.py   the first questions, which find out how to ask all others
    checks.py    the rest
    embedding.py what is checked where vectors come instead of a text
    run.py       all of them in order

Rule: no check assumes that a model is clever. Where the content of an answer matters and is not what would
be needed, the check is inconclusive. Nothing that serves imports this package.
"""
