"""One colour per class; the first ones are kept apart by people who see two kinds of cones."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.pipeline.palette import ALONE, COLOURS, QUIET, SAFE, class_colours, label_legend

MANY = tuple(f"class {n}" for n in range(250))
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
"""Linear red, green and blue as somebody sees them (Machado, Oliveira and Fernandes, 2009)."""
OKABE_AND_ITO = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]


def oklab(linear: np.ndarray) -> np.ndarray:
    """``(n, 3)`` linear light in Oklab (Ottosson, 2020), where distances are those seen."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    axes = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    seen: np.ndarray = np.cbrt(linear @ np.transpose(cones)) @ np.transpose(axes)
    return seen


def least_distance(colours: object, sight: object) -> float:
    """Of the two colours that are most alike to somebody."""
    encoded = np.asarray(colours) / 255
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = oklab(np.clip(light @ np.transpose(np.asarray(sight)), 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen, axis=2)
    return float(apart[np.triu_indices(len(seen), 1)].min())


@pytest.mark.parametrize("sight", SIGHT)
def test_the_first_colours_are_as_far_apart_as_those_of_okabe_and_ito(sight: str) -> None:
    least = min(least_distance(OKABE_AND_ITO, matrix) for matrix in SIGHT.values())
    assert least_distance(COLOURS[:SAFE], SIGHT[sight]) >= least
    assert least_distance(COLOURS[: SAFE // 2], SIGHT[sight]) > 2 * least


def test_every_class_has_a_colour_of_its_own_that_is_not_the_background_s() -> None:
    colours = class_colours(("background", *MANY))
    assert len(set(colours.values())) == len(MANY) + 1
    assert colours["background"] == QUIET


@pytest.mark.parametrize("count", [2, 7, 41])
def test_a_class_keeps_its_colour_whether_more_follow_or_a_background_is_among_them(
    count: int,
) -> None:
    colours = class_colours(MANY)
    assert class_colours(MANY[:count]) == {name: colours[name] for name in MANY[:count]}
    among = (*MANY[:1], "background", *MANY[1:])
    assert {**class_colours(among), "background": QUIET} == {**colours, "background": QUIET}


def test_a_single_class_has_a_colour_of_its_own_whether_there_is_a_background_or_not() -> None:
    assert class_colours(("tumour",)) == {"tumour": ALONE}
    assert class_colours(("background", "tumour")) == {"background": QUIET, "tumour": ALONE}


def test_the_legend_names_every_label_that_can_occur() -> None:
    assert [name for name, _, _ in label_legend(("tumour",)).values()] == [
        "not tumour",
        "tumour",
        "no data",
        "not answered",
    ]
    assert list(label_legend(("background", "a", "b"))) == [0, 1, 2, 254, 255]


def test_labels_are_shown_in_the_colours_of_their_classes() -> None:
    for classes in (("tumour",), ("background", "a", "b")):
        colours = class_colours(classes)
        shown = {name: colour for name, colour, _ in label_legend(classes).values()}
        assert {name: shown[name] for name in classes} == colours
