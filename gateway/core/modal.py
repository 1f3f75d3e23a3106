"""What Modal's web edge says and does: every text, number and name of it that this project relies on.

Rule: one line a fact, with its source, because none of it can be tried without an account.
``core/decode/edge.py`` reads answers by it, and the simulated edge speaks by it.
Sources: modal.com/docs/guide/{webhook-timeouts,webhook-proxy-auth,webhooks,servers,scale}; modal 1.6.4,
_runtime/asgi.py; "users": reported by several, in no document.
"""

from __future__ import annotations

PREFIX = "modal-http: "  # of every text of the edge of Web Functions (guide/webhook-proxy-auth)
AUTH_HEADERS = ("Modal-Key", "Modal-Secret")  # or one "Authorization: Bearer KEY.SECRET" (same page)
SESSION_HEADER = "Modal-Session-ID"  # any string; a Server sends equal ones to one container (guide/servers)

SERVERS = ".modal.direct"  # how their hosts end (guide/servers)
HOSTS = (".modal.run", SERVERS)  # and those of Web Functions (guide/webhook-urls)
EDGE_TIMEOUT = 150.0  # seconds until a Web Function's request is answered 303 (guide/webhook-timeouts)
CALL_PARAMETER = "__modal_function_call_id"  # of the result URL (guide/webhook-timeouts)
POLL_STATUS = 303  # "See Other" to the result URL; follow with GET (guide/webhook-timeouts)
REPOLL_STATUS = 408  # users: seen on result URLs; the result is still to come
FUNCTION_TIMEOUT = 300.0  # seconds, a Function's default timeout (modal 1.6.4, App.function)
SCALEDOWN_WINDOW = 60.0  # seconds an idle container stays by default (modal 1.6.4, App.function)
LIMITED = 429  # a workspace may send 200 requests a second, in bursts of 5 s; a Server has max_concurrency
MAX_PENDING = 2000  # inputs that may wait for one Function (guide/scale)
MAX_INPUTS = 25_000  # inputs of one Function, those that wait and those that run (guide/scale)
NOT_READY = 503  # a Server without a ready container; the request has started one (guide/servers)

# Texts, and before some the part by which an answer is known: what is around it may change.
ABOUT_CREDENTIALS = "credentials for proxy authorization"
MISSING_CREDENTIALS = PREFIX + "missing " + ABOUT_CREDENTIALS  # 401, guide/webhook-proxy-auth
INVALID_CREDENTIALS = PREFIX + "invalid " + ABOUT_CREDENTIALS  # 401, users
IS_STOPPED = "is stopped"
STOPPED = PREFIX + "app for invoked web endpoint " + IS_STOPPED  # 404, users; also an ended `modal serve`
NO_FUNCTION = "invalid function call"
UNKNOWN = PREFIX + NO_FUNCTION  # 404, users: wrong address, or for a moment during a deployment
IS_DISABLED = "is disabled"
DISABLED = PREFIX + "workspace {workspace} " + IS_DISABLED  # 404, users: its budget is spent
NOT_BY_GET = "bad redirect method"
BAD_REDIRECT = PREFIX + NOT_BY_GET  # 400, users: something other than GET on a result URL
LOST = "Missing request, possibly due to expiry or cancellation"  # 408, _runtime/asgi.py
RAN_OUT = "execution timed out"
TIMED_OUT = PREFIX + "internal error: function " + RAN_OUT  # 500, users: the Function's timeout=
TERMINATED = PREFIX + "internal error: function was terminated by signal"  # 500, users: killed, out of memory
LOST_TRACK = PREFIX + "internal error: status InternalFailure: Server has lost track of input"  # 500, users
RAISED = PREFIX + "internal error: status Failure: {error}"  # 500, users: raised before the app answered
