"""``coordinator top``: a live view of a project, on a terminal.

``views`` has a class for each view: its columns, where its rows come from, how one is opened, and what can be done to it. ``app`` shows them; it is
the only place that knows Textual. To add a view, add a class to ``views`` and its place to ``views.VIEWS``.
"""
