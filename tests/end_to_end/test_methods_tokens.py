"""Token methods on real pixels, from their recipes to what each of them promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import STATUS_DONE
from saccade.pipeline.models.rollout import attention_rollout, rollout_saliency
from saccade.pipeline.models.vision_transformers.blocks import Block
from saccade.pipeline.models.vision_transformers.cross import CrossViT
from saccade.pipeline.models.vision_transformers.plain import DenseViT, RolloutViT, TileViT
from saccade.pipeline.models.vision_transformers.scales import S2
from saccade.pipeline.models.vision_transformers.tiny_drop import TinyDrop
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.resampling import upsample
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.sources import open_source

METHODS = Path(__file__).parents[2] / "examples" / "methods"
SIDE = 1024
Run = Callable[..., Result]
Tokens = Counter[tuple[int, int]]
FINE = 1 + 32 + 4 * 32
"""Tokens of CF-ViT's second look at a tile of 64 coarse patches: class, context, split."""
HALF_STEP = 0.5 / 255 + 1e-4
"""Scores are stored as uint8."""


@pytest.fixture(scope="module")
def slide(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A piece of a real slide, tissue and glass, as a TIFF of its own."""
    with closing(open_source(str(data / "slides" / "cmu-1-small-region.svs"))) as source:
        pixels = source.read(0, Box(700, 300, 700 + SIDE, 300 + SIDE))
    path = tmp_path_factory.mktemp("slide") / "piece.tif"
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb")
    return path


@pytest.fixture
def tokens() -> Iterator[Tokens]:
    """How many windows had so many tokens of such a width in a block."""
    seen: Tokens = Counter()
    digest = Block.digest

    def counted(self: Block, tokens: Tensor) -> Tensor:
        seen[tokens.shape[2], tokens.shape[1]] += tokens.shape[0]
        return digest(self, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Block, "digest", counted)
        yield seen


@pytest.fixture
def method(slide: Path, tmp_path: Path) -> Run:
    """``method(name, PASS={option: value})``: the result of an example, with options changed."""

    def result(name: str, **options: dict[str, Any]) -> Result:
        recipe = load_recipe(METHODS / f"{name}.yaml")
        changes = {name: {"model": {"options": value}} for name, value in options.items()}
        return ran(recipe.overridden({"passes": changes}), slide, tmp_path)

    return result


def per_window(tokens: Tokens, width: int) -> float:
    """Mean number of tokens of this width that a block computed; models are also tried on noise."""
    counts = {count: windows for (w, count), windows in tokens.items() if w == width}
    return sum(count * windows for count, windows in counts.items()) / sum(counts.values())


def ran(recipe: Recipe, slide: Path, folder: Path) -> Result:
    into = folder / f"run-{len(list(folder.iterdir()))}"
    how = RunOptions(workers="local:1", device="cpu")
    summary = run(recipe, [slide], into, how, model_folder=METHODS)
    assert summary.complete == ("piece",), summary.quarantined
    return open_result(into)


def pixels_of(slide: Path, downsample: int) -> np.ndarray:
    """``(h, w, 3)`` uint8: block means, rounded, as a reader of the file alone would make them."""
    image = tifffile.imread(slide).astype(np.float64)
    side = SIDE // downsample
    return np.rint(image.reshape(side, downsample, side, downsample, 3).mean((1, 3)))


def as_input(pixels: np.ndarray) -> Tensor:
    """A normalised batch of one, as these models declare it."""
    x = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return (x - 0.5) / 0.5


def scores_of(result: Result, name: str) -> np.ndarray:
    return np.asarray(result.passes[name].scores, np.float32) / 255


def chosen(result: Result, name: str) -> list[int]:
    selection = result.passes[name].selection
    assert selection is not None
    return list(selection.tiles)


# -------------------------------------------------------------------------------------- every one


@pytest.mark.parametrize(
    "name", ["cf-vit", "cropr", "crossvit", "evit", "rams-trans", "s2", "tinydrop"]
)
def test_every_example_is_a_recipe_that_says_whose_method_it_is(name: str) -> None:
    path = METHODS / f"{name}.yaml"
    assert load_recipe(path).passes
    head = path.read_text(encoding="utf-8").partition("version:")[0]
    assert "arXiv" in head
    assert f"saccade run examples/methods/{path.name}" in head


# --------------------------------------------------------------------------------------- RAMS-Trans


def test_a_glance_s_rollout_is_its_saliency_and_proposals_are_where_it_stands_out(
    slide: Path, method: Run
) -> None:
    result = method("rams-trans")
    model = RolloutViT(patch=8, seed=1).eval()
    x, layers = as_input(pixels_of(slide, 8)), []
    with torch.inference_mode():
        tokens = model.encoder.begin(x)
        for block in model.encoder.layers:
            tokens, maps = block(tokens, look="everything")
            layers.append(maps)
        rolled = rollout_saliency(attention_rollout(torch.stack(layers, 1)), (16, 16))[0, 0].numpy()
    saliency = result.passes["glance"].saliency
    assert saliency is not None
    np.testing.assert_allclose(np.asarray(saliency) / 255, rolled, atol=HALF_STEP)

    assert result.passes["refine"].layout.tiles.rows == 4
    # A tile of the finer pass is 4 x 4 patches of the glance, a cell 2 x 2.
    cells = (np.asarray(saliency, np.float64) / 255).reshape(8, 2, 8, 2).mean((1, 3))
    regions = regions_of({(int(y), int(x)) for y, x in np.argwhere(cells > 1.01 * cells.mean())})
    expected: set[int] = set()
    for region in (one for one in regions if len(one) >= 2):
        (y0, x0), (y1, x1) = np.min(list(region), axis=0) // 2, np.max(list(region), axis=0) // 2
        expected |= {4 * y + x for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)}
    assert set(chosen(result, "refine")) == expected
    assert 0 < len(expected) < 16


def regions_of(cells: set[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """Cells that touch, diagonals included."""
    regions, left = [], set(cells)
    while left:
        region, edge = set(), {left.pop()}
        while edge:
            region |= edge
            edge = {
                c for y, x in edge for c in product((y - 1, y, y + 1), (x - 1, x, x + 1))
            } & left
            left -= edge
        regions.append(region)
    return regions


# ------------------------------------------------------------------------------------------- CF-ViT


def test_the_finer_pass_visits_the_tiles_with_the_most_class_attention(method: Run) -> None:
    result = method("cf-vit")
    saliency = result.passes["glance"].saliency
    assert saliency is not None
    # A tile of 128 fine pixels is 32 of the glance: 2 x 2 coarse patches, whose highest counts.
    highest = np.asarray(saliency).reshape(8, 2, 8, 2).max((1, 3)).reshape(-1)
    best = np.argsort(-highest.astype(int), kind="stable")[:16]
    assert chosen(result, "refine") == sorted(best.tolist())
    assert highest.min() < highest.max()


def test_tiles_that_exit_have_the_coarse_answer_and_are_computed_once(
    method: Run, tokens: Tokens
) -> None:
    computed, answers = [], []
    always, never = {"exit_at": 0.0}, {"exit_at": 1.1}
    coarse = scores_of(method("cf-vit", glance=always, refine=always), "glance")
    threshold = float(np.median(np.maximum(coarse, 1 - coarse)))
    for exit_at in (always, {"exit_at": threshold}, never):
        tokens.clear()
        answers.append(scores_of(method("cf-vit", glance=exit_at, refine=always), "glance"))
        computed.append(tokens[48, FINE])
    all_exit, some_exit, none_exits = answers
    assert 0 == computed[0] < computed[1] < computed[2]
    exited = np.isclose(some_exit, all_exit, atol=1e-6)
    assert (exited | np.isclose(some_exit, none_exits, atol=HALF_STEP)).all()
    assert not np.isclose(all_exit, none_exits, atol=1e-6).all()


# ----------------------------------------------------------------------------------------- CrossViT


def test_a_tile_is_answered_with_what_surrounds_it(slide: Path, method: Run) -> None:
    result = method("crossvit")
    model = CrossViT(tile=64, context=4, seed=1).eval()
    pixels, wide = pixels_of(slide, 2), pixels_of(slide, 8)
    stored = scores_of(result, "classify")
    picked = [t for t in chosen(result, "classify") if 2 <= t % 8 < 6 and 2 <= t // 8 < 6]
    differences = []
    for tile in picked:
        row, column = divmod(tile, 8)
        here = pixels[row * 64 :, column * 64 :][:64, :64]
        y, x = (row * 64 + 32) // 4 - 32, (column * 64 + 32) // 4 - 32
        around = wide[y:, x:][:64, :64]
        with torch.inference_mode():
            answer = model(as_input(here), context=(as_input(around),)).sigmoid()
            alone = model(as_input(here), context=(as_input(here),)).sigmoid()
        assert stored[0, row, column] == pytest.approx(float(answer), abs=HALF_STEP)
        differences.append(abs(float(alone) - float(answer)))
    assert max(differences) > 2 * HALF_STEP


# ----------------------------------------------------------------------------------------------- S2


def test_every_tile_is_read_at_both_scales(slide: Path, method: Run) -> None:
    result = method("s2")
    model = S2(scales=(1, 2), base=64, seed=1).eval()
    pixels, stored = pixels_of(slide, 2), scores_of(result, "read")
    for tile in chosen(result, "read"):
        row, column = divmod(tile, 4)
        piece = as_input(pixels[row * 128 :, column * 128 :][:128, :128])
        with torch.inference_mode():
            expected = model(piece).sigmoid()[0, 0].numpy()
        found = stored[0, row * 16 :, column * 16 :][:16, :16]
        np.testing.assert_allclose(found, expected, atol=HALF_STEP)
    assert model.head.weight.shape[1] == 2 * 48


# --------------------------------------------------------------------------------------------- EViT


def test_keeping_half_of_the_tokens_computes_fewer_and_keeping_all_is_the_plain_transformer(
    slide: Path, method: Run, tokens: Tokens
) -> None:
    half = method("evit")
    computed = per_window(tokens, 48)
    tokens.clear()
    whole = method("evit", classify={"keep": 1})
    assert computed < 0.65 * per_window(tokens, 48)
    assert chosen(half, "classify") == chosen(whole, "classify")
    plain = TileViT(tile=64, depth=6, seed=1).eval()
    pixels, stored = pixels_of(slide, 2), scores_of(whole, "classify")
    for tile in chosen(whole, "classify"):
        for row in (2 * (tile // 4), 2 * (tile // 4) + 1):
            for column in (2 * (tile % 4), 2 * (tile % 4) + 1):
                piece = as_input(pixels[row * 64 :, column * 64 :][:64, :64])
                with torch.inference_mode():
                    expected = float(plain(piece).sigmoid())
                assert stored[0, row, column] == pytest.approx(expected, abs=HALF_STEP)


# ----------------------------------------------------------------------------------------- TinyDrop


def test_the_large_model_sees_what_the_tiny_one_points_at(slide: Path, method: Run) -> None:
    result = method("tinydrop")
    picked = chosen(result, "large")
    assert len(picked) == 26  # 40 % of 64, rounded up
    size = {"tile": 128, "patch": 8, "width": 96, "depth": 6, "seed": 2}
    model = TinyDrop(keep=0.5, **size).eval()
    coarse, pixels = scores_of(result, "tiny"), pixels_of(slide, 1)
    stored = scores_of(result, "large")
    differs = 0
    for tile in picked[:7]:
        row, column = divmod(tile, 8)
        box = Box(row * 128, column * 128, row * 128 + 128, column * 128 + 128)
        guidance = torch.from_numpy(upsample(coarse, (0, 0), 16.0, box, coarse.shape[-2:]))[None]
        piece = as_input(pixels[box.slices])
        with torch.inference_mode():
            answer, all_of_it = model(piece, guidance=guidance).sigmoid(), model(piece).sigmoid()
        assert stored[0, row, column] == pytest.approx(float(answer), abs=HALF_STEP)
        differs += abs(float(answer) - float(all_of_it)) > 1e-4
    assert differs


def test_dropping_half_of_the_patches_halves_what_the_large_model_computes(
    method: Run, tokens: Tokens
) -> None:
    computed = []
    for keep in (0.5, 1.0):
        tokens.clear()
        method("tinydrop", large={"keep": keep})
        computed.append({count for width, count in tokens if width == 96})
    # A tile is 256 patches, and a class token.
    assert computed == [{1 + 128}, {1 + 256}]


# -------------------------------------------------------------------------------------------- Cropr


def test_cropped_tokens_are_not_computed_and_every_patch_is_answered_for(
    slide: Path, method: Run, tokens: Tokens
) -> None:
    half = method("cropr")
    computed = per_window(tokens, 48)
    tokens.clear()
    whole = method("cropr", segment={"keep": 1})
    assert computed < 0.65 * per_window(tokens, 48)
    plain = DenseViT(patch=8, depth=6, seed=1).eval()
    pixels, stored = pixels_of(slide, 2), scores_of(whole, "segment")
    for tile in chosen(whole, "segment"):
        row, column = divmod(tile, 4)
        piece = as_input(pixels[row * 128 :, column * 128 :][:128, :128])
        with torch.inference_mode():
            expected = plain(piece)["scores"].sigmoid()[0, 0].numpy()
        found = stored[0, row * 16 :, column * 16 :][:16, :16]
        np.testing.assert_allclose(found, expected, atol=HALF_STEP)
        mine = scores_of(half, "segment")[0, row * 16 :, column * 16 :][:16, :16]
        assert len(np.unique(mine)) > 1
    visited = half.passes["segment"].status.reshape(-1)[chosen(half, "segment")]
    assert (visited == STATUS_DONE).all()
