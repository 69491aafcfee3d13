"""The Model Context Protocol: tools and resources for models, made from the operations.

A call of a tool is a request to the application of the process that it runs in, a sidecar or a daemon. So access, limits, waits
and errors are those of HTTP, and nothing here decides about them.
"""
