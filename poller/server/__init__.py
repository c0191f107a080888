"""The daemon's own HTTP server, read-only: the page, the API, the metrics and whether the daemon is well.

``serving.Server`` is all of it. What it shows comes from a ``poller.overview.Overview``.
"""
