"""The console: pages for whoever runs the gateway, and what they ask it.

    sessions.py   who is logged in: signed cookies, and addresses that log in once
    files.py      the files of the page;  pages.py  logging in and out
    history.py    the last minutes as points for charts;  history_file.py  where several workers share them
    overview.py   these points, and the sums of today
    static/       the page itself, served as it lies there

Rule: the page has no way of its own. All it shows comes from routes that a key opens too.
"""
