"""The HTTP face; the only place that knows Litestar."""
