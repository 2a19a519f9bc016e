import msgspec
import pytest

from stellwerk.api.admin.download_shapes import DOWNLOAD, DownloadShape
from stellwerk.cli import local_model_view, models, pull_progress


@pytest.fixture
def state():
    return msgspec.convert(DOWNLOAD, DownloadShape)


def at(state, completed, total=1000):
    percent = 100 * completed / total
    return msgspec.structs.replace(state, completed=completed, total=total, percent=percent)


def test_away_from_a_terminal_there_is_a_line_for_every_tenth(state, capsys, english):
    with pull_progress.watched() as show:
        for completed in range(0, 1001, 20):
            show(at(state, completed))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1].split(" %")[0] for line in lines] == [str(percent) for percent in range(0, 101, 10)]


def test_a_terminal_gets_a_bar_with_amount_speed_and_time(state, capsys, english, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with pull_progress.watched() as show:
        show(state)
    shown = capsys.readouterr().err
    assert "1.2 GB of 4.7 GB" in shown
    assert "31.5 MB/s, 1:52 left" in shown


def test_sizes_and_times_follow_the_language(german):
    assert pull_progress.size(1_234_567) == "1,2 MB"
    assert pull_progress.size(5) == "5 Byte"
    assert [pull_progress.duration(seconds) for seconds in (5, 65, 3700)] == ["0:05", "1:05", "1:01:40"]


@pytest.mark.parametrize("module", [models, pull_progress, local_model_view])
def test_every_text_is_there_in_both_languages_with_the_same_places(module):
    for texts in module.TEXTS.values():
        places = [{part.split("}")[0] for part in texts[name].split("{")[1:]} for name in ("en", "de")]
        assert places[0] == places[1], texts
