import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.engines.ocr.modes import LONG_SIDES, MODES, fit, look

SIZES = st.tuples(st.integers(1, 12_000), st.integers(1, 12_000))
A4 = (1654, 2339)


@pytest.mark.parametrize(("mode", "longest"), LONG_SIDES.items())
def test_a_page_is_read_in_the_pixels_of_its_mode(mode, longest):
    assert max(look(mode, A4).page) == longest


def test_gundam_reads_the_page_as_it_is_and_looks_at_it_in_bands_and_as_a_whole():
    seen = look("gundam", A4)
    assert seen.page == A4
    assert seen.search == A4
    assert len(seen.bands) == 3
    assert seen.overview is not None
    assert max(seen.overview) == 1280


def test_gundam_looks_at_a_small_page_in_one_piece():
    seen = look("gundam", (800, 600))
    assert len(seen.bands) == 1
    assert seen.overview is None


def test_text_on_coarse_pages_is_looked_for_on_an_enlarged_one():
    assert max(look("tiny", A4).search) == 768
    assert max(look("small", A4).search) == 960
    assert max(look("large", A4).search) == 1280


@given(SIZES, st.sampled_from(MODES))
def test_nothing_is_read_in_more_pixels_than_there_are(size, mode):
    seen = look(mode, size)
    assert seen.page[0] <= size[0]
    assert seen.page[1] <= size[1]
    assert min(*seen.page, *seen.search) >= 1
    assert max(seen.search) <= 3584


@given(SIZES, st.sampled_from(MODES))
def test_bands_cover_the_whole_page_and_overlap(size, mode):
    seen = look(mode, size)
    assert seen.bands[0].top == 0
    assert seen.bands[-1].bottom == seen.search[1]
    for above, below in zip(seen.bands, seen.bands[1:], strict=False):
        assert above.top < below.top < above.bottom - 90
        assert above.bottom - above.top <= 1026


@given(SIZES, st.integers(1, 5000))
def test_fitting_keeps_the_shape(size, longest):
    width, height = fit(size, longest)
    assert max(width, height) <= max(longest, 1)
    assert abs(width * size[1] - height * size[0]) <= max(size)
