"""``coordinator top``: a live view of a project, on a terminal.

``views`` has a class for each view: its columns, the source of its rows, the details of a row, and the actions on it.
``app`` displays them; it is the only module that uses Textual. To add a view, add a class to ``views`` and list it in
``views.VIEWS``.
"""
