"""RapidOCR as a reader of pages. Runs in the worker only."""

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rapidocr

from stellwerk.engines.ocr.layout import reading_order
from stellwerk.engines.ocr.markdown import as_markdown, as_text
from stellwerk.engines.ocr.modes import Look, Mode, Size, look
from stellwerk.engines.ocr.page import OcrBox, OcrPage, Point
from stellwerk.engines.ocr.pieces import cut_off, once, unseen

_SURE = 0.5
"""Below this what was read is not text."""
_MOST_BOXES = 3000
_WIDEST = 120
"""Times its height that a line may be wide; what is wider is squeezed, since it costs memory by its width."""
_LEAST_SIDE = 16
_JUDGES = 8
"""Lines by which it is judged whether a page stands on its head."""
_READ_BOTH_WAYS = 3
_GLIMPSE = 6
"""Times its height that is looked at of a line for that: a whole one would be squeezed until nobody could tell."""


class Reader:
    """Loads its models when made: about a second."""

    def __init__(self, threads: int) -> None:
        models = Path(rapidocr.__file__).parent / "models"
        self._engine: Any = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                # Sizes are our choice, see modes.py.
                "Global.use_preprocess_img": False,
                "Det.limit_type": "min",
                "Det.limit_side_len": _LEAST_SIDE,
                "Det.max_candidates": _MOST_BOXES,
                # More at a time takes half as much memory again and is no faster.
                "Rec.rec_batch_num": 1,
                "Cls.cls_batch_num": 1,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                # With a path nothing is looked for elsewhere, let alone fetched.
                "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
                "Cls.model_path": str(models / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
                "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
            }
        )
        blank = np.full((64, 320, 3), 255, np.uint8)
        cv2.putText(blank, "ready", (20, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 2)
        self._search(blank)
        self._engine.recognize_txt([blank])
        self._engine.cls_and_rotate([blank])

    def read(self, picture: Any, page: int, mode: Mode, *, boxes: bool) -> OcrPage:
        """`picture` is RGB, rows by columns by three bytes."""
        started = time.perf_counter()
        found, turns, size = self._boxes(np.ascontiguousarray(picture[:, :, ::-1]), mode)
        runs = reading_order(found)
        letters = sum(len(box.text) for box in found)
        ordered = [piece.box for run in runs for line in run for piece in line.pieces] if boxes else []
        return OcrPage(
            page=page,
            text=as_text(runs),
            markdown=as_markdown(runs),
            boxes=tuple(_turned_back(box, turns, size) for box in ordered),
            width=picture.shape[1],
            height=picture.shape[0],
            mode=mode,
            seconds=round(time.perf_counter() - started, 3),
            score=round(sum(box.score * len(box.text) for box in found) / letters, 4) if letters else None,
        )

    def _boxes(self, picture: Any, mode: Mode) -> tuple[list[OcrBox], int, Size]:
        """What stands on the page once it is upright; how often it was turned by 90° for that, and its size then."""
        turns, corners = 0, self._find(picture, mode)
        if _lies_on_its_side(corners):
            turns, picture = 1, np.ascontiguousarray(np.rot90(picture))
            corners = self._find(picture, mode)
        if self._stands_on_its_head(picture, corners):
            height, width = picture.shape[:2]
            turns, picture = turns + 2, np.ascontiguousarray(np.rot90(picture, 2))
            # Turned as well, and the corner that was the lower right one is the upper left one now.
            corners = np.roll(np.array([width, height], np.float32) - corners, 2, axis=1)
        seen = look(mode, (picture.shape[1], picture.shape[0]))
        small, scale = _resized(picture, seen.page), seen.page[0] / picture.shape[1]
        found: list[OcrBox] = []
        for quad in corners:
            text, score = self._recognise(small, quad * scale)
            if score >= _SURE and text.strip():
                one, two, three, four = ((round(float(x)), round(float(y))) for x, y in quad)
                found.append(OcrBox((one, two, three, four), text, round(score, 4)))
        return found, turns, (picture.shape[1], picture.shape[0])

    def _find(self, picture: Any, mode: Mode) -> Any:
        """Corners of all pieces of text in pixels of the picture: n by 4 by 2."""
        seen = look(mode, (picture.shape[1], picture.shape[0]))
        searched = _resized(picture if mode == "gundam" else _resized(picture, seen.page), seen.search)
        corners = np.concatenate([self._band(searched, seen, number) for number in range(len(seen.bands))])
        if len(seen.bands) > 1:
            corners = corners[once(_bounds(corners))]
        corners = _rescaled(corners, searched, picture)
        if seen.overview is not None:
            rough = self._search_in(picture, seen.overview)
            corners = np.concatenate((corners, rough[unseen(_bounds(rough), _bounds(corners))]))
        return corners[:_MOST_BOXES] if len(corners) else self._search_in(picture, seen.again)

    def _band(self, searched: Any, seen: Look, number: int) -> Any:
        band = seen.bands[number]
        corners = self._search(np.ascontiguousarray(searched[band.top : band.bottom]))
        whole = ~cut_off(_bounds(corners), band, first=number == 0, last=number == len(seen.bands) - 1)
        return corners[whole] + np.array([0, band.top], np.float32)

    def _search(self, picture: Any) -> Any:
        if min(picture.shape[:2]) < _LEAST_SIDE:
            return _none()
        found = self._engine(picture, use_det=True, use_cls=False, use_rec=False)
        return _none() if found.boxes is None else np.asarray(found.boxes, np.float32).reshape(-1, 4, 2)

    def _search_in(self, picture: Any, size: Size) -> Any:
        """On the picture in `size`, in pixels of the picture."""
        reduced = _resized(picture, size)
        return _rescaled(self._search(reduced), reduced, picture)

    def _crop(self, picture: Any, quad: Any) -> Any:
        if min(np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[0])) < 2:
            return None
        (crop,) = self._engine.crop_text_regions(picture, quad[None].astype(np.float32))
        height, width = crop.shape[:2]
        return crop if width <= _WIDEST * height else cv2.resize(crop, (_WIDEST * height, height))

    def _recognise(self, picture: Any, quad: Any) -> tuple[str, float]:
        crop = self._crop(picture, quad)
        if crop is None:
            return "", 0.0
        read = self._engine.recognize_txt([crop])
        return str(read.txts[0]), float(read.scores[0])

    def _stands_on_its_head(self, picture: Any, corners: Any) -> bool:
        """By its widest lines, which are the surest witnesses."""
        widest = sorted(corners, key=lambda quad: -float(np.linalg.norm(quad[1] - quad[0])))[:_JUDGES]
        whole = [crop for quad in widest if (crop := self._crop(picture, quad)) is not None]
        crops = [np.ascontiguousarray(crop[:, : _GLIMPSE * crop.shape[0]]) for crop in whole]
        if not crops:
            return False
        _, judged = self._engine.cls_and_rotate(crops)
        if sum(label == "180" for label, _ in judged.cls_res) * 2 <= len(crops):
            return False
        # Of blurred lines it is often wrong; whoever turns the page has to be able to read it then.
        as_it_is = sum(self._score(crop) for crop in crops[:_READ_BOTH_WAYS])
        return sum(self._score(np.rot90(crop, 2)) for crop in crops[:_READ_BOTH_WAYS]) > as_it_is

    def _score(self, crop: Any) -> float:
        return float(self._engine.recognize_txt([np.ascontiguousarray(crop)]).scores[0])


def _none() -> Any:
    return np.zeros((0, 4, 2), np.float32)


def _bounds(corners: Any) -> Any:
    """Left, top, right, bottom of each."""
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1) if len(corners) else np.zeros((0, 4))


def _rescaled(corners: Any, seen: Any, picture: Any) -> Any:
    """Corners on one picture as corners on another of the same page."""
    across, down = picture.shape[1] / seen.shape[1], picture.shape[0] / seen.shape[0]
    return corners * np.array([across, down], np.float32)


def _resized(picture: Any, size: Size) -> Any:
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    smaller = size[0] < picture.shape[1]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _lies_on_its_side(corners: Any) -> bool:
    """Whether most lines run from top to bottom."""
    if len(corners) < 3:
        return False
    along = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1)
    across = np.linalg.norm(corners[:, 3] - corners[:, 0], axis=1)
    return bool(np.count_nonzero(across > 1.5 * along) * 2 > len(corners))


def _turned_back(box: OcrBox, turns: int, size: Size) -> OcrBox:
    """A box on a picture of `size` that was turned so many times by 90° against the clock, on the picture before."""
    one, two, three, four = (_point_before(point, turns, size) for point in box.points)
    return OcrBox((one, two, three, four), box.text, box.score)


def _point_before(point: Point, turns: int, size: Size) -> Point:
    (x, y), (width, height) = point, size
    for _ in range(turns):
        x, y = height - y, x
        width, height = height, width
    return max(0, min(x, width)), max(0, min(y, height))
