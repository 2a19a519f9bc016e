"""The small windows in front of a view: a question, a choice and the list of keys.

Keys that were typed ahead reach a window that has gone already: only one that is still in front closes itself.
"""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from stellwerk.tui.language import Words

_HELP = (
    ("↑ ↓", "help.move"), ("1 2 3 4", "help.views"), ("Tab", "help.next"), ("s", "help.start"), ("x", "help.stop"),
    ("X", "help.force"), ("r", "help.resolution"), ("p", "help.pause"), ("c", "help.cancel"), ("/", "help.filter"),
    ("R", "help.refresh"), ("q", "help.quit"),
)  # fmt: skip


class Question(ModalScreen[bool]):
    """Yes or no; Enter is no answer, so that nothing is cut off by one key too many."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,j", "answer(True)", show=False),
        Binding("n,q,escape", "answer(False)", show=False),
    ]

    def __init__(self, question: str, words: Words) -> None:
        super().__init__()
        self._question = question
        self._words = words

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self._question))
            yield Static(Text(self._words("ask.keys")), classes="hint")

    def action_answer(self, yes: bool) -> None:
        if self.is_current:
            self.dismiss(yes)


class Choice(ModalScreen[str | None]):
    """One of some words, None when it was left."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,escape", "leave", show=False)]

    def __init__(self, title: str, options: Sequence[str], now: str, words: Words) -> None:
        super().__init__()
        self._title = title
        self._options = options
        self._now = now
        self._words = words

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self._title))
            yield OptionList(*(Option(option, id=option) for option in self._options))
            yield Static(Text(self._words("ask.choose")), classes="hint")

    def on_mount(self) -> None:
        if self._now in self._options:
            self.query_one(OptionList).highlighted = self._options.index(self._now)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        if self.is_current:
            self.dismiss(event.option.id)

    def action_leave(self) -> None:
        if self.is_current:
            self.dismiss(None)


class Keys(ModalScreen[None]):
    """Every key and what it does."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self._words = words

    def compose(self) -> ComposeResult:
        lines = [f"{key:<9}{self._words(text)}" for key, text in _HELP]
        with Vertical(classes="dialog"):
            yield Static(Text(self._words("help.title"), style="bold"))
            yield Static(Text("\n".join(lines)))
            yield Static(Text(self._words("help.close")), classes="hint")

    def on_key(self, event: events.Key) -> None:
        event.stop()
        if self.is_current:
            self.dismiss(None)
