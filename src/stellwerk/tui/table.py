"""A table that is filled anew at every look without the chosen line moving away."""

from collections.abc import Sequence

from rich.text import Text
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from stellwerk.tui.language import Words
from stellwerk.tui.snapshot import Crash, Job, Model, Queue
from stellwerk.tui.tables import COLUMNS, Row, widths


class LiveTable(DataTable[Text]):
    """The lines of one view."""

    def __init__(self, view: str, words: Words) -> None:
        super().__init__(id=view, cursor_type="row", cell_padding=0, zebra_stripes=False)
        self.view = view
        self._words = words
        self._live_rows: list[Row] = []
        self._width = 0

    @property
    def chosen(self) -> Model | Queue | Job | Crash | None:
        """What the line under the cursor is about."""
        return self._live_rows[self.cursor_row].fact if 0 <= self.cursor_row < len(self._live_rows) else None

    def fill(self, rows: Sequence[Row], width: int) -> None:
        """Shows these lines on a screen of `width` cells."""
        before, kept, stood = self._live_rows, self._chosen_key(), self.cursor_row
        self._live_rows = list(rows)
        if width != self._width:
            self._width = width
            self.clear(columns=True)
            for (key, _), cells in zip(COLUMNS[self.view], widths(self.view, width), strict=True):
                self.add_column(Text(self._words(key), no_wrap=True), width=cells)
        elif [row.key for row in rows] == [row.key for row in before]:
            self._update(before)
            return
        else:
            self.clear()
        for row in rows:
            self.add_row(*(self._cut(cell, column) for column, cell in enumerate(row.cells)))
        at = next((place for place, row in enumerate(rows) if row.key == kept), stood)
        self.move_cursor(row=max(0, min(at, len(rows) - 1)))

    def _chosen_key(self) -> str | None:
        return self._live_rows[self.cursor_row].key if 0 <= self.cursor_row < len(self._live_rows) else None

    def _update(self, before: Sequence[Row]) -> None:
        for line, (old, new) in enumerate(zip(before, self._live_rows, strict=True)):
            for column, (was, cell) in enumerate(zip(old.cells, new.cells, strict=True)):
                if was != cell or was.spans != cell.spans or was.style != cell.style:
                    self.update_cell_at(Coordinate(line, column), self._cut(cell, column))

    def _cut(self, cell: Text, column: int) -> Text:
        """The cell without what would touch the next column."""
        cut = cell.copy()
        cut.truncate(widths(self.view, self._width)[column] - 1, overflow="ellipsis")
        return cut
