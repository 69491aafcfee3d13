"""The screen of ``coordinator top``.

Guarantees: it reads only the current view, every few seconds. If a read fails, it reports the error and keeps the
previous rows until the next successful read. It changes nothing before a question was answered with y. Other people's
texts are shown literally: control characters are escaped, and nothing in them is interpreted as markup.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, ClassVar, TypeVar

import anyio
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from coordinator.cli.output import cell, counted, plain
from coordinator.cli.top.views import VIEWS, View, ViewRow, ViewSource, described
from coordinator.errors import CoordinatorError
from coordinator.model.status import Status
from coordinator.operations import status

__all__ = ["Top"]

RETRY_S = 2.0
CELL = 60  # characters of a cell

W = TypeVar("W", bound=Widget)
Opener = Callable[[], AbstractAsyncContextManager[ViewSource]]


class Question(ModalScreen[bool]):
    """Asks before an action: y confirms it, any other key cancels it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Show the question."""
        yield Static(Text(f"{plain(self._text)}\n\ny: yes   n: no"), id="question")

    def action_answer(self, yes: bool) -> None:
        """Answer."""
        self.dismiss(yes)


class Details(ModalScreen[None]):
    """Shows one row in full."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "dismiss", "Back")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Show the text, which may be longer than the screen."""
        with VerticalScroll(id="details"):
            yield Static(Text(self._text))


class Top(App[None]):
    """The application. ``opener`` opens the source of its data; ``interval_s`` is the time between two reads."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #status { height: 1; padding: 0 1; background: $primary-background; }
    #message { height: auto; padding: 0 1; color: $text-error; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    TabPane { padding: 0; }
    Question, Details { align: center middle; }
    #question { width: 70; height: auto; padding: 1 2; border: round $warning; background: $surface; }
    #details { width: 90%; height: 80%; padding: 1 2; border: round $primary; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(n), f"show({n})", show=False) for n in range(1, len(VIEWS) + 1)),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter"),
        Binding("x", "act", "Act"),
        Binding("space", "pause", "Pause"),
        Binding("q", "quit", "Quit"),
        Binding("escape", "unfilter", show=False),
    ]

    def __init__(self, opener: Opener, where: str, interval_s: float = 2.0) -> None:
        super().__init__()
        self.animation_level = "none"  # no animations, for slow connections
        self._opener = opener
        self._where = where
        self._interval_s = interval_s
        self._views: dict[str, View] = {}
        for make in VIEWS:
            view = make()
            self._views[view.title.lower()] = view
        self._sorts = {name: (view.sort, view.descending) for name, view in self._views.items()}
        self._rows: dict[str, list[ViewRow]] = {name: [] for name in self._views}
        self._words = dict.fromkeys(self._views, "")
        self._shown: dict[str, object] = {}
        self._source: ViewSource | None = None
        self._paused = False
        self._hurry = anyio.Event()

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Static(Text(f"{self._where}: connecting"), id="status")
        yield Static("", id="message")
        with TabbedContent(id="views"):
            for n, (name, view) in enumerate(self._views.items(), 1):
                with TabPane(f"{n} {view.title}", id=name):
                    yield DataTable[Text](id=f"{name}-table", cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="Show rows with this text; enter keeps it, escape ends it", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self._focus()
        self.run_worker(self._read_forever(), exclusive=True)

    async def _read_forever(self) -> None:
        with suppress(NoMatches):  # the screen is closing
            while True:
                try:
                    async with self._opener() as self._source:
                        while True:
                            await self._look(self._source)
                            self._hurry = anyio.Event()
                            with anyio.move_on_after(self._interval_s):
                                await self._hurry.wait()
                except CoordinatorError as error:
                    self._say(error)
                self._source = None
                await anyio.sleep(RETRY_S)

    async def _look(self, source: ViewSource) -> None:
        name = self.shown
        if self._paused:
            return
        try:
            found = await source.run(status.Show)
            self._rows[name] = await self._views[name].rows(source)
        except CoordinatorError as error:
            self._say(error)
            return
        self._say(None)
        self._part("#status", Static).update(Text(self._headline(found)))
        self._fill(name)

    def _headline(self, found: Status) -> str:
        shown = (
            f"{counted(found.agent_count, 'agent')}, {counted(found.lock_count, 'lock')}, {found.waiting_count} waiting"
        )
        warnings = f"{counted(len(found.warnings), 'warning')}, see coordinator doctor; " if found.warnings else ""
        return plain(f"{warnings}{found.project} at {self._where}: {shown}; {found.leader or 'nobody'} leads")

    def _part(self, selector: str, kind: type[W]) -> W:
        """Return a part of the screen, even if a question covers it.

        Raises: ``NoMatches`` while the screen is closing.
        """
        if not self.screen_stack:
            raise NoMatches("there is no screen any more")
        return self.screen_stack[0].query_one(selector, kind)

    def _say(self, error: CoordinatorError | None) -> None:
        text = "" if error is None else f"{error.message}. {error.hint or ''}"
        self._part("#message", Static).update(Text(plain(text)))

    @property
    def shown(self) -> str:
        """Name of the current view."""
        return self._part("#views", TabbedContent).active or next(iter(self._views))

    def table(self, name: str) -> DataTable[Text]:
        """Return the table of a view."""
        return self._part(f"#{name}-table", DataTable)

    def _fill(self, name: str) -> None:
        """Show the rows of a view that match the filter, in order; the cursor stays on its row."""
        table, view = self.table(name), self._views[name]
        sort, descending = self._sorts[name]
        at = view.columns.index(sort)
        words = self._words[name].lower()
        lines = [(row, [cell(value, CELL) for value in row.cells]) for row in self._rows[name]]
        lines = [(row, cells) for row, cells in lines if any(words in one.lower() for one in cells)]
        lines.sort(key=lambda line: _order(line[0].cells[at]), reverse=descending)
        shown = (sort, descending, [(row.key, cells) for row, cells in lines])
        if self._shown.get(name) == shown:
            return
        self._shown[name] = shown
        chosen = self._chosen(name)
        table.clear(columns=True)
        for column in view.columns:
            table.add_column(Text(f"{column} {'▼' if descending else '▲'}" if column == sort else column), key=column)
        for row, cells in lines:
            table.add_row(*(Text(one) for one in cells), key=row.key)
        if chosen is not None and chosen.key in table.rows:
            table.move_cursor(row=table.get_row_index(chosen.key), animate=False)

    def _chosen(self, name: str) -> ViewRow | None:
        """Return the row at the cursor."""
        table = self.table(name)
        if not table.is_valid_coordinate(table.cursor_coordinate):
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return next((row for row in self._rows[name] if row.key == key), None)

    def _focus(self) -> None:
        self.table(self.shown).focus()

    def on_tabbed_content_tab_activated(self) -> None:
        """Read the newly selected view at once."""
        self._hurry.set()

    def action_show(self, number: int) -> None:
        """Show a view."""
        self._part("#views", TabbedContent).active = [*self._views][number - 1]
        self._focus()

    def action_sort(self) -> None:
        """Sort by the next column."""
        name = self.shown
        columns = self._views[name].columns
        sort, descending = self._sorts[name]
        self._sorts[name] = (columns[(columns.index(sort) + 1) % len(columns)], descending)
        self._fill(name)

    def action_reverse(self) -> None:
        """Reverse the order."""
        sort, descending = self._sorts[self.shown]
        self._sorts[self.shown] = (sort, not descending)
        self._fill(self.shown)

    def action_filter(self) -> None:
        """Ask for the text of the filter."""
        line = self._part("#filter", Input)
        line.value = self._words[self.shown]
        line.add_class("shown")
        line.focus()

    def on_input_changed(self, changed: Input.Changed) -> None:
        """Filter while the text is typed."""
        if changed.input.has_class("shown"):
            self._words[self.shown] = changed.value
            self._fill(self.shown)

    def on_input_submitted(self) -> None:
        """Keep the filter."""
        self._part("#filter", Input).remove_class("shown")
        self._focus()

    def action_unfilter(self) -> None:
        """Clear the filter."""
        self._part("#filter", Input).remove_class("shown")
        self._words[self.shown] = ""
        self._fill(self.shown)
        self._focus()

    def action_pause(self) -> None:
        """Pause or resume reading."""
        self._paused = not self._paused
        self.sub_title = "paused" if self._paused else ""
        if self._paused:
            self._part("#status", Static).update(Text("paused; press space to continue"))
        self._hurry.set()

    async def on_data_table_row_selected(self) -> None:
        """Open the details of a row (enter)."""
        name = self.shown
        if (row := self._chosen(name)) is None or self._source is None:
            return
        try:
            found = await self._views[name].opened(self._source, row.item)
        except CoordinatorError as error:
            self._say(error)
            return
        self.push_screen(Details(described(found)))

    def action_act(self) -> None:
        """Ask whether to run the view's action on the row."""
        name = self.shown
        action, row = self._views[name].action, self._chosen(name)
        if action is None or row is None:
            return
        self.push_screen(Question(action.question(row.item)), functools.partial(self._answered, name, row))

    async def _answered(self, name: str, row: ViewRow, yes: bool | None) -> None:
        action = self._views[name].action
        if not yes or action is None or self._source is None:
            return
        try:
            await action.run(self._source, row.item)
        except CoordinatorError as error:
            self.notify(plain(error.message), severity="error", markup=False)
            return
        self.notify(f"{action.label}: done", markup=False)
        self._hurry.set()


def _order(value: Any) -> tuple[bool, Any]:
    """Return a sort key for the values of a column: absent values come first; lists are compared as text."""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return (value is not None, value if value is not None else 0)


@asynccontextmanager
async def source_of(url: str, config: Any, project: str, actor: str | None) -> AsyncIterator[ViewSource]:
    """Open a database or a daemon for the views."""
    from coordinator.client.transport import open_transport  # noqa: PLC0415

    async with open_transport(url, config) as transport:
        yield ViewSource(transport.executor, project, actor)
