"""The Model Context Protocol: tools and resources for models, derived from the operations.

A call of a tool is a request to the application of its own process, a sidecar or a daemon. So access, limits, waits and
errors are the same as over HTTP.
"""
