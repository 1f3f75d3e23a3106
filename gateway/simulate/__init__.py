"""A local stand-in for Modal's web edge, in front of any app.

    options.py   what is simulated: the mode, times and sizes
    faults.py    what a request may ask for in its header: a boot, a fault
    pool.py      containers and the queue before them; pure, its clock is handed in
    call.py      one input: its request, its answer as it comes, who waits for it
    edge.py      the ASGI application: inputs, result URLs, refusals
    wire.py      credentials, what is passed on, where a result is
    journal.py   what happened, as lines and as numbers
    server.py    its HTTP server

Rule: what Modal says comes from ``gateway/core/modal.py``, which the gateway reads answers by; what is not
known of Modal is decided here and said in the documentation. Containers are only counted: all requests go to
the one app. Nothing that serves imports this package.
"""
