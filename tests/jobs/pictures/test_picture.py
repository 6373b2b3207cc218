from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from mosaics import write_tif
from PIL import Image

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.jobs.pictures.colours import (
    FAILED,
    GLANCE,
    LAST,
    NO_DATA,
    heat,
    heat_table,
    pass_colours,
    stripes,
)
from saccade.jobs.pictures.ground import Ground
from saccade.jobs.pictures.layers import answers, block_mean, fitted
from saccade.jobs.pictures.page import PageLayout, draw_page
from saccade.jobs.pictures.panels import Panel, Row, Scene, panels, tile_outlines
from saccade.jobs.pictures.pen import Pen
from saccade.jobs.pictures.picture import draw_pictures, open_scene
from saccade.jobs.pictures.thumbnail import as_colours
from saccade.jobs.pictures.words import length_text, percent, round_length, significant
from saccade.pipeline.errors import UsageError
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import STATUS_FAILED
from saccade.pipeline.palette import ALONE, class_colours
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import open_result
from saccade.pipeline.store import ImageStore
from saccade.workers.folder import RunFolder

TILE, SIDE = 64, 448
PLANTED = (2, 5)
"""Row and column of the one tile with texture in it."""


def recipe(**output: object) -> Recipe:
    model = {"source": "builtin:tissue", "options": {"rgb": False}}
    look = {"by": "top_k", "k": 1, "statistic": "mean"}
    return Recipe.model_validate(
        {
            "passes": [
                {"name": "glance", "resolution": {"downsample": 8}, "model": model, "tile": 8},
                {
                    "name": "look",
                    "resolution": {"downsample": 1},
                    "model": model,
                    "tile": TILE,
                    "select": look,
                },
            ],
            "output": {"chunk": 64, "shard": 64} | output,
        }
    )


def planted_image() -> np.ndarray:
    """Flat grey, and noise in the planted tile that survives averaging."""
    pixels = np.full((SIDE, SIDE), 120, np.uint8)
    y, x = PLANTED[0] * TILE, PLANTED[1] * TILE
    coarse = np.random.default_rng(7).integers(0, 256, (TILE // 16, TILE // 16), np.uint8)
    pixels[y : y + TILE, x : x + TILE] = np.kron(coarse, np.ones((16, 16), np.uint8))
    return pixels


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("picture")
    tifffile.imwrite(folder / "planted.tif", planted_image(), tile=(64, 64))
    run(recipe(), [folder / "planted.tif"], folder / "run", RunOptions("local:1", device="cpu"))
    return folder / "run"


Unfinished = Callable[..., RunFolder]


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Unfinished:
    """A run as a kill leaves it: the first few passes stored, the next one planned or not."""

    def cut(passes: int, *, planned: bool) -> RunFolder:
        whole, part = RunFolder(finished), RunFolder(tmp_path / "cut")
        shutil.copytree(whole.root / "plans", part.root / "plans")
        shutil.copy(whole.identity, part.identity)
        old = ImageStore.open(whole.result("planted"))
        new = ImageStore.create(part.result("planted"), old.plan, {})
        for layout in old.plan.passes[:passes]:
            for path in (f"passes/{layout.name}/{array}" for array in ("scores", "status")):
                area = old.spec(path).area
                new.write(path, area, old.read(path, area))
        for path in map(str, range(old.plan.levels_in_unit if passes == 2 else 0)):
            new.write(path, old.spec(path).area, old.read(path, old.spec(path).area))
        for layout in old.plan.passes[passes + planned :]:
            part.pass_plan("planted", layout).unlink()
        return part

    return cut


def scene_of(folder: Path) -> Scene:
    return open_scene(folder / "results" / "planted.ome.zarr", 448)[0]


def at_tile(panel: Panel, row: int, column: int, *, side: int = SIDE) -> np.ndarray:
    """Mean colour of the inner half of a tile as a panel shows it."""
    scale = panel.pixels.shape[0] / side
    y0, x0 = (round((c + 0.25) * TILE * scale) for c in (row, column))
    half = round(TILE / 2 * scale)
    mean: np.ndarray = panel.pixels[y0 : y0 + half, x0 : x0 + half].mean(axis=(0, 1))
    return mean


def towards(colour: tuple[int, int, int], pixel: np.ndarray) -> float:
    """How much of a colour's own hue a pixel has: 1 like the colour, about 0 for grey."""
    wanted = np.array(colour, float) - np.mean(colour)
    return float((pixel - pixel.mean()) @ wanted / (wanted @ wanted))


# --------------------------------------------------------------------------------------- the panels


def test_the_planted_tile_glows_in_the_heat_map_and_nothing_far_from_it_does(
    finished: Path,
) -> None:
    glance = panels(scene_of(finished))[1]
    assert at_tile(glance, *PLANTED).mean() > 150
    assert np.array_equal(at_tile(glance, 5, 1), heat_table()[0])


def test_the_tile_that_was_looked_at_bears_the_last_pass_s_colour_and_no_other_does(
    finished: Path,
) -> None:
    looks = panels(scene_of(finished))[2]
    assert towards(LAST, at_tile(looks, *PLANTED)) > 0.4
    others = [at_tile(looks, r, c) for r in range(7) for c in range(7) if (r, c) != PLANTED]
    assert max(towards(LAST, pixel) for pixel in others) < 0.01
    assert min(towards(GLANCE, pixel) for pixel in others) > 0.1


def test_the_result_is_strong_where_the_score_is_and_grey_where_it_is_not(finished: Path) -> None:
    result = panels(scene_of(finished))[3]
    assert towards(ALONE, at_tile(result, *PLANTED)) > 0.4
    assert abs(towards(ALONE, at_tile(result, 5, 1))) < 0.01


def test_a_legend_says_how_many_tiles_each_pass_visited(finished: Path) -> None:
    rows = panels(scene_of(finished))[2].legend
    assert [row.text for row in rows] == ["glance", "look"]
    assert [row.right for row in rows] == ["49 of 49 tiles, 100 %", "1 of 49 tiles, 2 %"]
    assert [row.swatch for row in rows] == list(pass_colours(2))


def test_a_legend_counts_pixels_without_data_and_only_tiles_with_some(tmp_path: Path) -> None:
    pixels = planted_image()[..., None]
    pixels[:, : SIDE // 2] = 0  # three and a half of seven columns of tiles
    write_tif(tmp_path / "planted.tif", [pixels], nodata=0)
    run(recipe(), [tmp_path / "planted.tif"], tmp_path / "run", RunOptions("local:1", device="cpu"))
    rows = {row.text: row.right for row in panels(scene_of(tmp_path / "run"))[2].legend}
    assert rows["glance"] == "28 of 49 tiles, 57 %"
    assert rows["no data"] == "50 % of the area"


def test_all_panels_of_an_image_have_the_size_that_the_page_has_for_them(finished: Path) -> None:
    scene, layout = open_scene(finished / "results" / "planted.ome.zarr", 448)
    assert {panel.pixels.shape for panel in panels(scene)} == {(*layout.panel_shape, 3)}


def test_the_result_of_a_panel_is_that_of_a_block_mean_over_the_whole_result(
    finished: Path,
) -> None:
    scene = scene_of(finished)
    whole = scene.result.scores.compute()
    shown = answers(scene.result, scene.store, (7, 7)).score
    assert np.allclose(shown, block_mean(whole, TILE)[0], atol=0.01)


def test_a_picture_of_a_complete_image_does_not_read_its_finest_level(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = ImageStore.read
    monkeypatch.setattr(
        ImageStore, "read", lambda self, array, box: asked.append(array) or read(self, array, box)
    )
    scene, _ = open_scene(finished / "results" / "planted.ome.zarr", 60)
    panels(scene)
    assert "1" in asked or "2" in asked or "3" in asked
    assert not {"0", "passes/look/scores", "labels/classes/0"} & set(asked)


def test_a_tile_that_could_not_be_read_is_hatched_in_red_and_counted(finished: Path) -> None:
    copy = finished.parent / "failed"
    shutil.copytree(finished, copy)
    store = ImageStore.open(copy / "results" / "planted.ome.zarr")
    for array, value in (("status", STATUS_FAILED), ("passes/look/status", STATUS_FAILED)):
        area = store.spec(array).area
        values = store.read(array, area)
        values[PLANTED] = value
        store.write(array, area, values)
    summary = open_result(copy).facts["passes"]["look"]
    assert summary["failed"] == 0  # as recorded when it was complete; the arrays say otherwise
    looks = panels(scene_of(copy))[2]
    assert towards(FAILED, at_tile(looks, *PLANTED)) > 0.3
    assert (looks.pixels == FAILED).all(axis=2).sum() > 100


CLASSIFIER = """
import torch
from saccade.pipeline.models.base import ModelSpec, Prediction

class Classifier:
    spec = ModelSpec(("background", "dark", "light"), stride=32, multiple=32, channels=1,
                     saliency=True)

    def __call__(self, views):
        mean = torch.nn.functional.avg_pool2d(views.pixels, 32)
        known = torch.cat([torch.full_like(mean, 0.9), 1 - mean, mean], 1)
        return Prediction(known, saliency=mean)

def build():
    return Classifier()
"""


def test_a_tile_classifier_is_shown_in_blocks_of_its_strongest_class_but_the_background(
    tmp_path: Path,
) -> None:
    (tmp_path / "classifier.py").write_text(CLASSIFIER)
    pixels = np.full((256, 320), 20, np.uint8)
    pixels[:, 192:] = 235
    tifffile.imwrite(tmp_path / "planted.tif", pixels, tile=(64, 64))
    passes = [
        {"name": n, "resolution": {"downsample": d}, "model": "classifier.py:build", "tile": 64}
        for n, d in (("sweep", 2), ("sweep-again", 1))
    ]
    run(
        Recipe.model_validate({"passes": passes, "output": {"chunk": 16, "shard": 16}}),
        [tmp_path / "planted.tif"],
        tmp_path / "run",
        RunOptions("local:1", device="cpu"),
        model_folder=tmp_path,
    )
    _, glance, _, result = panels(scene_of(tmp_path / "run"))
    dark, light = list(class_colours(("background", "dark", "light")).values())[1:]
    assert [row.swatch for row in result.legend[:2]] == [dark, light]
    assert towards(dark, at_tile(result, 1, 1, side=256)) > 0.5
    assert towards(light, at_tile(result, 1, 4, side=256)) > 0.5
    expected = heat(np.array([[20 / 255, 235 / 255]]))[0]
    assert np.allclose(at_tile(glance, 1, 1, side=256), expected[0], atol=2)
    assert np.allclose(at_tile(glance, 1, 4, side=256), expected[1], atol=2)


# ----------------------------------------------------------------------------------- the unfinished


def test_before_the_glance_has_answered_everything_is_not_yet(unfinished: Unfinished) -> None:
    scene = scene_of(unfinished(0, planned=True).root)
    image, glance, looks, result = panels(scene)
    assert [row.right for row in looks.legend] == ["not yet", "not yet"]
    assert glance.legend[-1].text == "nothing yet"
    lines = stripes(scene.shape, scene.pitch_px)
    for panel in (glance, result):
        assert (panel.pixels[lines] == NO_DATA).all()
    assert not (image.pixels == NO_DATA).all()


def test_after_the_glance_its_map_is_shown_and_the_rest_is_said_to_be_missing(
    unfinished: Unfinished,
) -> None:
    scene = scene_of(unfinished(1, planned=False).root)
    _, glance, looks, result = panels(scene)
    assert at_tile(glance, *PLANTED).mean() > 150
    assert [row.right for row in looks.legend] == ["49 of 49 tiles, 100 %", "not yet"]
    assert towards(ALONE, at_tile(result, *PLANTED)) > 0.4
    assert result.legend[-1].text == "as far as the run has come"


def test_tiles_that_are_chosen_but_not_yet_visited_are_outlined_and_not_filled(
    unfinished: Unfinished,
) -> None:
    looks = panels(scene_of(unfinished(1, planned=True).root))[2]
    assert looks.legend[1].right == "0 of 1 chosen so far"
    assert towards(LAST, at_tile(looks, *PLANTED)) < 0.01
    edge = looks.pixels[round(looks.pixels.shape[0] * PLANTED[0] / 7)]
    assert max(towards(LAST, pixel.astype(float)) for pixel in edge) > 0.6


def test_the_last_pass_is_shown_from_what_its_units_leave_before_the_image_is_complete(
    finished: Path, unfinished: Unfinished
) -> None:
    part, whole = scene_of(unfinished(2, planned=False).root), scene_of(finished)
    assert not part.result.complete
    seen, meant = (answers(s.result, s.store, (448, 448)).score for s in (part, whole))
    tile = slice(PLANTED[0] * TILE, PLANTED[0] * TILE + TILE)
    across = slice(PLANTED[1] * TILE, PLANTED[1] * TILE + TILE)
    assert meant[tile, across].std() > 0.1
    assert np.array_equal(seen[tile, across], meant[tile, across])


def test_an_unfinished_image_is_drawn_like_the_finished_one_where_it_is_the_same(
    finished: Path, unfinished: Unfinished
) -> None:
    part = scene_of(unfinished(1, planned=False).root)
    whole = scene_of(finished)
    seen, meant = (answers(s.result, s.store, (49, 49)).score for s in (part, whole))
    glance = np.ones((49, 49), bool)
    glance[PLANTED[0] * 7 : PLANTED[0] * 7 + 7, PLANTED[1] * 7 : PLANTED[1] * 7 + 7] = False
    difference = np.abs(seen - meant)[glance]
    # Halving a finely upsampled edge again and again softens it a little.
    assert difference.max() < 0.15
    assert difference.mean() < 0.005
    assert meant[glance].max() > 0.9


# ---------------------------------------------------------------------------------------- the files


def test_a_picture_is_a_png_in_the_run_s_folder_with_the_page_s_width(finished: Path) -> None:
    (path,) = draw_pictures(finished)
    assert path == RunFolder(finished).picture("planted")
    layout = PageLayout.of((SIDE, SIDE), 900)
    with Image.open(path) as page:
        assert (page.format, page.mode) == ("PNG", "RGB")
        assert page.width == round(830 * layout.scale)
    assert list(path.parent.iterdir()) == [path]


def test_drawing_twice_gives_the_same_bytes(finished: Path) -> None:
    first = next(draw_pictures(finished, "planted")).read_bytes()
    assert next(draw_pictures(finished, "planted")).read_bytes() == first


def test_an_unknown_name_is_answered_with_the_known_ones(finished: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'planted'.*there are: planted"):
        draw_pictures(finished, "plantet")


def test_a_run_without_a_prepared_image_says_so(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "run.json", tmp_path / "run.json")
    with pytest.raises(UsageError, match="nothing to draw yet"):
        draw_pictures(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a run's folder expected"):
        draw_pictures(tmp_path)


def test_what_was_found_is_drawn_even_when_the_image_is_gone(
    finished: Path, tmp_path: Path
) -> None:
    image = finished.parent / "planted.tif"
    away = image.rename(tmp_path / "away.tif")
    try:
        scene = scene_of(finished)
    finally:
        away.rename(image)
    drawn = panels(scene)
    assert drawn[0].legend[0].text == "the image can't be opened"
    assert (drawn[0].pixels == NO_DATA).all()
    assert towards(ALONE, at_tile(drawn[3], *PLANTED)) > 0.4


# ----------------------------------------------------------------------------------------- the page


@given(st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=80), st.integers(9, 90))
def test_words_are_cut_short_to_the_room_there_is(words: str, room: int) -> None:
    pen = Pen(Image.new("RGB", (7, 7)), 2.0)
    fitting = pen.fit(words, 10.5, room)
    assert pen.width(fitting, 10.5) <= room
    assert fitting == words or pen.width(words, 10.5) > room


@pytest.mark.parametrize("image", [(700, 500), (500, 700), (100, 900), (900, 100), (3, 3)])
def test_long_names_stay_inside_their_column(image: tuple[int, int]) -> None:
    layout = PageLayout.of(image, 300)
    grey = np.full((*layout.panel_shape, 3), 128, np.uint8)
    long = "glomerulosclerosis-of-the-left-kidney" * 3
    bar = np.zeros((13, 3), np.uint8)
    rows = (
        Row(long, "0.5 um/px", "1,234 of 5,678 tiles, 22 %", (1, 2, 3)),
        Row(long, quiet=True),
        Row(long, bar=bar),
    )
    page = draw_page(
        layout, (long * 3, "complete", long * 5), (Panel(long, grey, rows),) * 4, Ground()
    )
    ink = np.asarray(page.convert("L")) < 200
    below = ink[round(52 * layout.scale) :]
    for column in range(1, layout.columns):
        gap = (18 + column * (layout.column + 16) - 15) * layout.scale
        assert not below[:, round(gap) : round(gap + 13 * layout.scale)].any()
    assert not ink[:, : round(16 * layout.scale)].any()
    assert not ink[:, -round(16 * layout.scale) :].any()


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 4000))
def test_panels_fit_the_page_and_keep_the_image_s_shape(height: int, width: int, px: int) -> None:
    layout = PageLayout.of((height, width), px)
    assert layout.columns in (1, 2, 4)
    assert min(layout.panel_shape) >= 1
    assert layout.panel[1] <= layout.column + 1e-6
    assert layout.panel[0] <= 420 + 1e-6
    if min(layout.panel) > 24:
        assert layout.panel[0] * width == pytest.approx(layout.panel[1] * height)


# ------------------------------------------------------------------------------ colours and numbers


def test_the_heat_map_gets_lighter_all_the_way_in_steps_that_look_equal() -> None:
    light = (heat_table() / 255.0) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    perceived = np.cbrt(light[::15])
    assert (np.diff(perceived) > 0).all()
    assert light[0] < 0.02 < 0.85 < light[-1]


def test_heat_shows_the_unknown_as_no_data() -> None:
    shown = heat(np.array([[0.0, 1.0, np.nan]]))
    assert shown.tolist() == [[list(heat_table()[0]), list(heat_table()[255]), list(NO_DATA)]]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 32])
def test_every_pass_has_a_colour_and_neighbours_differ(count: int) -> None:
    colours = pass_colours(count)
    assert len(colours) == count
    assert all(a != b for a, b in itertools.pairwise(colours))
    assert pass_colours(count)[-1] == LAST


@pytest.mark.parametrize(("channels", "dtype"), [(1, "u1"), (2, "u2"), (3, "f4"), (7, "i2")])
def test_samples_of_any_kind_become_colours_over_the_whole_range(channels: int, dtype: str) -> None:
    pixels = np.random.default_rng(5).integers(13, 113, (31, 37, channels)).astype(dtype)
    known = np.ones((31, 37), bool)
    shown = as_colours(pixels, known)
    assert (shown.shape, shown.dtype) == ((31, 37, 3), np.uint8)
    assert (shown.min(), shown.max()) == (0, 255)
    order = np.argsort(pixels[..., 0], axis=None)
    assert (np.diff(shown[..., 0].reshape(-1)[order].astype(int)) >= 0).all()


def test_colours_of_three_bytes_are_shown_as_they_are() -> None:
    pixels = np.random.default_rng(5).integers(90, 110, (5, 7, 4), np.uint8)
    assert np.array_equal(as_colours(pixels, np.ones((5, 7), bool)), pixels[..., :3])


def test_numbers_without_meaning_do_not_stretch_the_others() -> None:
    pixels = np.full((11, 13, 1), np.nan, np.float32)
    pixels[:, :7, 0] = np.linspace(3, 5, 7)
    shown = as_colours(pixels, ~np.isnan(pixels[..., 0]))
    assert (shown[0, 0, 0], shown[0, 6, 0]) == (0, 255)


@given(st.integers(1, 23), st.integers(1, 29), st.integers(1, 7))
def test_a_block_mean_is_the_mean_of_the_pixels_there_are(height: int, width: int, by: int) -> None:
    values = np.random.default_rng(3).random((2, height, width)).astype(np.float32)
    means = block_mean(values, by)
    for row, column in np.ndindex(means.shape[1:]):
        block = values[:, row * by : (row + 1) * by, column * by : (column + 1) * by]
        assert np.allclose(means[:, row, column], block.mean(axis=(1, 2)), atol=1e-6)


def test_a_constant_is_fitted_to_the_same_constant() -> None:
    assert np.allclose(fitted(np.full((7, 11), 0.3, np.float32), (6.5, 10.2), (53, 97)), 0.3)


def test_outlines_are_the_borders_of_the_chosen_tiles(finished: Path) -> None:
    plan = open_result(finished).plan
    wanted = np.zeros((7, 7), bool)
    wanted[2, 3:5] = True
    lines = tile_outlines(plan, plan.last, wanted, (77, 77), each=True)
    block = np.zeros((77, 77), bool)
    for column in (3, 4):
        block[Box(22, column * 11, 33, column * 11 + 11).slices] = True
    assert (lines <= block).all()
    assert lines[[22, 32], 33:55].all()
    assert lines[22:33, 44].all()
    region = tile_outlines(plan, plan.last, wanted, (77, 77), each=False)
    assert not region[23:32, 44].any()
    assert region.sum() == 2 * 22 + 2 * 9


@given(st.floats(1e-3, 1e9))
def test_a_scale_bar_is_round_and_as_long_as_it_can_be(most: float) -> None:
    length = round_length(most)
    assert length <= most * (1 + 1e-6)
    assert length * 2.5 >= most * (1 - 1e-6)
    assert f"{length:.0e}"[0] in "125"


def test_lengths_sizes_and_shares_read_well() -> None:
    assert [length_text(n, "um") for n in (0.2, 7, 500, 2e3, 5e4)] == [
        "200 nm",
        "7 um",
        "500 um",
        "2 mm",
        "5 cm",
    ]
    assert [length_text(n, "m") for n in (0.07465, 20, 17813)] == ["7.46 cm", "20 m", "17.8 km"]
    assert [significant(n) for n in (0.499, 1234.5, 8.0, 12.345)] == ["0.499", "1,234", "8", "12.3"]
    shares = (0, 1e-5, 0.004, 0.29, 0.9987, 0.99999, 1)
    texts = ["0 %", "0.1 %", "0.4 %", "29 %", "99.9 %", "99.9 %", "100 %"]
    assert [percent(s) for s in shares] == texts
