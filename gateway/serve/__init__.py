"""One request's life: from its first byte to its record.

    surfaces.py      the APIs that are served
    api.py           one of them as an application
    embeddings.py    the one of vectors;  count_tokens.py  the one of counts
    life.py          the frame of a request: it begins, is answered or refused, and leaves one record
    steps.py         what all of them do first, next and last;  choices.py  the answers of one request
    job.py           what is known of it meanwhile
    books.py         what limits, budgets and the ledger have to do with it
    judging.py       JSON that is judged and asked for again
    responses.py     what the Responses API needs beside;  retention.py  what it keeps
    images.py        images that are named by an address;  together.py  several things at once
    headers.py       what is told in headers;  transcript.py  what was said, where that is kept
    service.py       what every request may need

Rule: one way for data. A whole answer is the collected stream.
"""
