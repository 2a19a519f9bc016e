"""The console: four views of one gateway, steered by keys."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Input, Static

from stellwerk.tui.actions import Actions
from stellwerk.tui.details import describe
from stellwerk.tui.dialogs import Keys
from stellwerk.tui.feed import Feed
from stellwerk.tui.language import Words
from stellwerk.tui.snapshot import Snapshot
from stellwerk.tui.source import Source
from stellwerk.tui.table import LiveTable
from stellwerk.tui.tables import VIEWS, is_told, rows_of
from stellwerk.tui.throughput import Throughput
from stellwerk.tui.trouble import ConsoleTrouble

EVERY_SECONDS = 2.0
_LONGEST_FILTER = 80
_KEYS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "models": (("s", "key.start"), ("x", "key.stop"), ("X", "key.force"), ("r", "key.resolution")),
    "queues": (("p", "key.pause"),),
    "requests": (("c", "key.cancel"),),
    "crashes": (),
}
_EVERYWHERE = (("/", "key.filter"), ("R", "key.refresh"), ("?", "key.help"), ("q", "key.quit"))


class Console(App[None]):
    """Shows the gateway at `url`, which `choose` finds out how to ask; `leave` is called at the end, on the loop."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #header, #views { height: 1; }
    #header { background: $primary; color: $text; }
    #tables { height: 1fr; }
    LiveTable { height: 1fr; scrollbar-size: 1 1; overflow-x: hidden; }
    #detail { height: 4; border-top: none; color: $text-muted; }
    #detail.crashes { height: 10; }
    #notice, #keys { height: 1; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    ModalScreen { align: center middle; }
    .dialog { width: auto; max-width: 76; height: auto; padding: 1 2; border: round $primary; background: $surface; }
    .dialog Static { width: auto; max-width: 70; }
    .dialog OptionList { width: 30; height: auto; margin: 1 0; }
    .dialog .hint { margin-top: 1; color: $text-muted; }
    /* Without colours the chosen line has to be seen all the same. */
    .plain LiveTable > .datatable--cursor { text-style: reverse; }
    .plain LiveTable:focus > .datatable--cursor { text-style: reverse; }
    .plain OptionList > .option-list--option-highlighted { text-style: reverse; }
    .plain #header { text-style: reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"view('{view}')", show=False) for number, view in enumerate(VIEWS, 1)),
        Binding("tab", "next_view(1)", show=False, priority=True),
        Binding("shift+tab", "next_view(-1)", show=False, priority=True),
        Binding("s", "act('start')", show=False),
        Binding("x", "act('stop')", show=False),
        Binding("X", "act('force')", show=False),
        Binding("r", "act('resolution')", show=False),
        Binding("p", "act('pause')", show=False),
        Binding("c", "act('cancel')", show=False),
        Binding("R", "hurry", show=False),
        # Before anybody else sees it: what was typed behind it belongs to the filter already.
        Binding("slash", "filter", show=False, priority=True),
        Binding("escape", "clear_filter", show=False),
        Binding("question_mark", "help", show=False),
        Binding("q,ctrl+c", "quit", show=False),
    ]

    def __init__(
        self,
        url: str,
        choose: Callable[[], Awaitable[Source]],
        words: Words,
        *,
        leave: Callable[[], None],
        every: float = EVERY_SECONDS,
    ) -> None:
        plain = "NO_COLOR" in os.environ
        super().__init__(ansi_color=plain)
        self._plain = plain
        self._url = url
        self._words = words
        self._leave = leave
        self.view = VIEWS[0]
        self.snapshot: Snapshot | None = None
        self._throughput = Throughput()
        self._wanted = ""
        self._link = words("connecting")
        self._width = 80
        self._connected = False
        self._trouble: Text | None = None
        self._said = Text()
        self._feed = Feed(choose, show=self._show, lose=self._lose, every=every)
        self._actions = Actions(
            words,
            source=lambda: self._feed.source,
            ask=self.push_screen_wait,
            tell=self.tell,
            done=self._feed.hurry,
        )

    def compose(self) -> ComposeResult:
        yield Static(id="header")
        yield Static(id="views")
        with ContentSwitcher(initial=self.view, id="tables"):
            for view in VIEWS:
                yield LiveTable(view, self._words)
        yield Static(id="detail")
        yield Static(id="notice")
        yield Input(id="filter", placeholder=self._words("filter"), max_length=_LONGEST_FILTER, compact=True)
        yield Static(id="keys")

    def on_mount(self) -> None:
        self._width = self.size.width
        if self._plain:
            self.screen.add_class("plain")
        self._draw()
        self._table.focus()
        self._look()

    def on_unmount(self) -> None:
        self._leave()

    @work(group="feed")
    async def _look(self) -> None:
        await self._feed.run()

    # --- what the feed tells

    def _show(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._throughput.note(snapshot.at, snapshot.queues or ())
        self._link = self._words("connected")
        self._connected, self._trouble = True, None
        self._draw()

    def _lose(self, trouble: ConsoleTrouble, pause: float) -> None:
        self._link = self._words("reconnecting", seconds=round(pause))
        self._connected, self._trouble = False, Text(self._words.trouble(trouble), style="bold red")
        self._draw()

    def tell(self, text: str, *, bad: bool = False) -> None:
        """Says something in the line above the keys, until the next thing is said."""
        self._said = Text(text, style="red" if bad else "")
        if self._is_up:
            self._draw_notice()

    # --- what is drawn

    @property
    def _table(self) -> LiveTable:
        return self._base.query_one(f"#{self.view}", LiveTable)

    @property
    def _base(self) -> Screen[Any]:
        """The screen below all small windows."""
        return self.screen_stack[0]

    @property
    def _is_up(self) -> bool:
        """Not while the screen is taken down: a look or a deed may end just then."""
        return self.is_running and bool(self.screen_stack) and len(self._base.query(LiveTable)) == len(VIEWS)

    def _draw(self) -> None:
        if not self._is_up:
            return
        snapshot = self.snapshot
        rows = []
        if snapshot is not None:
            rows = rows_of(self.view, snapshot, self._throughput, self._words, self._wanted)
        self._table.fill(rows, self._width)
        self._draw_header()
        self._draw_views()
        self._draw_detail()
        self._draw_notice()
        self._draw_keys()

    def _draw_header(self) -> None:
        version = self.snapshot.version if self.snapshot is not None else ""
        sign = "●" if self._connected else "○"
        link = f"{sign} {self._link} "
        left = Text(f" Stellwerk {version}".rstrip() + f"  {self._url}")
        left.truncate(max(10, self._width - len(link) - 1), overflow="ellipsis", pad=True)
        self._set("header", left + Text(" " + link, style="" if self._connected else "bold"))

    def _draw_views(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        for number, view in enumerate(VIEWS, 1):
            name = f" {number} {self._words(f'view.{view}')} "
            line.append(f"[{name.strip()}]" if view == self.view else name, "bold" if view == self.view else "")
            line.append(" ")
        if self._wanted:
            line.append("  " + self._words("filtered", text=self._wanted), "yellow")
        self._set("views", line)

    def _draw_detail(self) -> None:
        detail = self._base.query_one("#detail", Static)
        detail.set_class(self.view == "crashes", "crashes")
        if self.snapshot is None:
            detail.update("")
            return
        text = describe(self.view, self._table.chosen, self.snapshot, self._words, self._width)
        if not self._table.row_count:
            told = is_told(self.view, self.snapshot)
            key = "not_offered" if not told else "nothing.found" if self._wanted else f"nothing.{self.view}"
            text = Text("\n").join([Text(self._words(key, text=self._wanted)), text])
        detail.update(text)

    def _draw_notice(self) -> None:
        notice = self._trouble if self._trouble is not None else self._said
        notice.no_wrap, notice.overflow = True, "ellipsis"
        self._set("notice", notice)

    def _draw_keys(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        for key, name in (*_KEYS[self.view], *_EVERYWHERE):
            line.append(key, "reverse").append(f" {self._words(name)}  ")
        self._set("keys", line)

    def _set(self, name: str, text: Text) -> None:
        self._base.query_one(f"#{name}", Static).update(text)

    # --- what keys do

    def on_resize(self, event: events.Resize) -> None:
        self._width = event.size.width
        self._draw()

    def on_data_table_row_highlighted(self, _: LiveTable.RowHighlighted) -> None:
        if self._is_up:
            self._draw_detail()

    def action_view(self, view: str) -> None:
        if view != self.view and not self._actions.is_at_work:
            # It was about something that is not shown any more.
            self._said = Text()
        self.view = view
        self._base.query_one(ContentSwitcher).current = view
        self._draw()
        self._table.focus()

    def action_next_view(self, step: int) -> None:
        self.action_view(VIEWS[(VIEWS.index(self.view) + step) % len(VIEWS)])

    def check_action(self, action: str, _parameters: tuple[object, ...]) -> bool | None:
        """The console's own keys belong to whatever is in front of the views."""
        if action == "filter" and isinstance(self.focused, Input):
            return False
        return action == "quit" or len(self.screen_stack) == 1

    def action_hurry(self) -> None:
        self._feed.hurry()

    @work(group="deeds")
    async def action_act(self, name: str) -> None:
        await self._actions.act(name, self._table.chosen)

    def action_help(self) -> None:
        self.push_screen(Keys(self._words))

    def action_filter(self) -> None:
        field = self._base.query_one("#filter", Input)
        field.display = True
        # At once: `focus()` waits for a while in which keys that were typed ahead would go elsewhere.
        self._base.set_focus(field)

    def action_clear_filter(self) -> None:
        self._base.query_one("#filter", Input).value = ""
        self._close_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._wanted = event.value.strip()
        self._draw()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        self._base.query_one("#filter", Input).display = False
        self._base.set_focus(self._table)
