"""What an operator sees of requests while they happen and afterwards.

    telemetry.py   all of it, made once at start
    lines.py       a record as one line
    requests.py    the log of requests: a thread writes it
    trace.py       a request's place in its client's trace
    spans.py       what spans say
    tracing.py     spans made and exported; the only module that knows OpenTelemetry
    series.py      counters and histograms of every request
    collectors.py  metrics that are looked up at a scrape
    families.py    metrics as plain data, and the sum of several processes'
    workers.py     the metrics of all workers, whichever is asked
    lag.py         how late the event loop is

Rule: everything is told from a record at the end of its request, so that a request pays next to nothing.
"""
