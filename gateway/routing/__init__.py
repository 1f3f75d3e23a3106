"""Which upstream gets a call, when, and what may be tried after a failure.

Rule: lives above ``plan``, because another model means another template. ``Routes`` knows the models,
``Attempts`` one request's candidates, ``Target`` one upstream with its slots, its containers' state and its
circuit. Knows nothing about HTTP.
"""
