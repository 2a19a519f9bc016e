import numpy as np

from stellwerk.engines.ocr.modes import Band
from stellwerk.engines.ocr.pieces import cut_off, once, unseen


def boxes(*rows):
    return np.array(rows, float).reshape(-1, 4)


def test_what_an_inner_edge_cuts_is_left_to_the_next_band():
    found = boxes([0, 0, 50, 20], [0, 40, 50, 60], [0, 985, 50, 1000])
    assert cut_off(found, Band(500, 1500), first=False, last=False).tolist() == [True, False, True]


def test_what_the_edge_of_the_page_cuts_is_kept():
    found = boxes([0, 0, 50, 20], [0, 985, 50, 1000])
    assert not cut_off(found, Band(0, 1000), first=True, last=True).any()


def test_text_found_in_two_bands_is_kept_once_and_the_larger_box_wins():
    found = boxes([0, 100, 400, 120], [0, 101, 380, 121], [0, 130, 400, 150])
    assert once(found).tolist() == [True, False, True]
    assert once(boxes([0, 0, 9, 9], [0, 0, 9, 9])).tolist() == [True, False]


def test_from_afar_only_what_was_missed_is_added():
    fine = boxes([0, 0, 100, 20], [100, 0, 200, 20])
    rough = boxes([0, 0, 200, 20], [0, 300, 900, 700])
    assert unseen(rough, fine).tolist() == [False, True]


def test_nothing_found_is_nothing_kept():
    assert once(boxes()).tolist() == []
    assert unseen(boxes(), boxes([0, 0, 1, 1])).tolist() == []
    assert unseen(boxes([0, 0, 5, 5]), boxes()).tolist() == [True]
