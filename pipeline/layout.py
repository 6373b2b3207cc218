"""How a pass lies over an image: resolution, tiles, windows, chunks, shards. Pure.

Turns what the recipe leaves open (``auto``) into numbers, once per image and pass, from the image's
shape and the model's declaration alone: never from the number of workers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from saccade.pipeline.capacity import ANY_DEVICE, WINDOW_PX, Capacity
from saccade.pipeline.errors import PlanError
from saccade.pipeline.feature_grid import FeatureFlow, FeatureGrid
from saccade.pipeline.geometry import Box, Grid, Shape, round_up
from saccade.pipeline.inputs import AS_STORED, Inputs
from saccade.pipeline.models.base import Arithmetic, ModelForm, ModelSpec
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.pipeline.sources.plane import PlaneSpec

TILE_PX = 256
"""Side of a tile that the recipe leaves open: fine enough to select, coarse enough to compute."""
TILES_PER_GLANCE = 32
"""A glance in one forward pass has about this many tiles along its longer side."""
UNIT_BYTES = 128 * 2**20
"""A unit's scores are at most this large."""
UNITS_PER_PASS = 16
"""A pass is cut into at least this many units, where its chunks allow."""
REGION_PX = 4096
"""A unit's region is at most this many input pixels high and wide, where its chunks allow."""
CHUNK_MIN_PX = 16
"""A chunk is at least this many scores high and wide."""
LEAST_TILE_PX = 64
"""Tiles that the recipe leaves open are not made smaller than this to fit a memory."""


NO_FLOW = FeatureFlow()
"""A pass that neither gives nor takes features."""


@dataclass(frozen=True, slots=True)
class PassLayout:
    """Where a pass's tiles, windows, chunks and shards lie. Input pixels unless said otherwise."""

    name: str
    """Of the pass."""
    index: int
    """Position in the recipe; 0 is the glance."""
    plane: PlaneSpec
    """The image at this pass's resolution."""
    classes: tuple[str, ...]
    """Of the scores."""
    stride: int
    """Input pixels per score."""
    multiple: int
    """Windows begin and end at multiples of this; a multiple of ``stride``."""
    halo_px: int
    """Context around a window, a multiple of ``multiple``."""
    tile_px: int
    """Side of a tile, a multiple of ``multiple``."""
    window_tiles: int
    """Longest side of a window, in tiles; 0 means that one window holds the whole pass."""
    batch: int
    """Windows per forward pass."""
    chunk_px: int
    """Side of a chunk, in scores."""
    shard_px: int
    """Side of a shard, in scores; whole chunks and whole tiles."""
    blend: str = "crop"
    """'crop' or 'hann'."""
    merge: bool = True
    """Whether neighbouring tiles may share a window."""
    saliency: bool = False
    """Whether the model's own saliency is stored."""
    confidence: bool = False
    """Whether the model's own confidence is stored."""
    context: tuple[float, ...] = ()
    """Extra fields of view, each so many times coarser than the window."""
    guidance: bool = False
    """Whether the model is given the previous pass's scores."""
    gives: FeatureGrid | None = None
    """Encoder features that are stored for the next pass; None where that takes none."""
    takes: FeatureGrid | None = None
    """Features of the previous pass that the model is given, on a grid of this pass's pixels."""
    local: bool = True
    """Whether the halo bounds what an answer depends on; False for global attention."""
    precision: Arithmetic = "float32"
    """Arithmetic of the model; scores are float32 in any case."""
    channels_last: bool = False
    """Whether the model's weights lie in memory with their channels last; else as loaded."""
    fused: bool = False
    """Whether its convolutions take in the normalisation and the ReLU that follow them."""
    graphed: bool = False
    """Whether a full batch is replayed from a graph of the device, where one can be captured."""
    bands: tuple[int, ...] | None = None
    """Channels of the image that the model is given, counted from 0; None for all."""
    scaled: bool = False
    """Whether samples are multiplied by their band's scale, plus its offset."""
    inputs: Inputs = AS_STORED
    """What samples become before the model."""
    holes: bool = False
    """Whether the image may lack data: then it is stored which scores have none below them."""

    def __post_init__(self) -> None:
        for name in ("halo_px", "tile_px"):
            if getattr(self, name) % self.multiple:
                raise PlanError(
                    f"pass {self.name!r}: {name} must be a multiple of {self.multiple} (model "
                    f"stride and multiple); found {getattr(self, name)}"
                )
        strides = (self.stride, *self.flow.strides)
        if any(self.multiple % one for one in strides) or self.shard_px % self.chunk_px:
            raise PlanError(f"pass {self.name!r}: sizes do not nest: {self}")
        if self.region_px % self.tile_px:
            raise PlanError(
                f"pass {self.name!r}: a shard of {self.region_px} px must hold whole tiles of "
                f"{self.tile_px} px, or two units would share a tile; set output.shard to match"
            )

    @property
    def form(self) -> ModelForm:
        """In what form the model computes."""
        return ModelForm(self.precision, self.channels_last, self.fused)

    @property
    def flow(self) -> FeatureFlow:
        """What it does with features."""
        return FeatureFlow(self.gives, self.takes)

    @property
    def padded_shape(self) -> Shape:
        """The plane's shape, each side rounded up to ``multiple``."""
        height, width = self.plane.shape
        return round_up(height, self.multiple), round_up(width, self.multiple)

    @property
    def window_shape(self) -> Shape:
        """Height and width of the largest windows, halo included."""
        if not self.window_tiles:
            return self.padded_shape
        side = self.window_tiles * self.tile_px + 2 * self.halo_px
        height, width = self.padded_shape
        return min(side, height), min(side, width)

    @property
    def score_shape(self) -> Shape:
        """Height and width of the scores."""
        height, width = self.plane.shape
        return -(-height // self.stride), -(-width // self.stride)

    @property
    def score_downsample(self) -> float:
        """Pixels of level 0 per score."""
        return self.plane.downsample * self.stride

    @property
    def planes(self) -> tuple[str, ...]:
        """What else the model says of every score and the pass stores, as bytes."""
        return tuple(name for name in ("saliency", "confidence") if getattr(self, name))

    @property
    def score_plane(self) -> PlaneSpec:
        """The image at the resolution of the scores: one pixel per score."""
        return self.plane.coarser(self.stride)

    @property
    def region_px(self) -> int:
        """Side of the region that one shard answers for, in input pixels."""
        return self.shard_px * self.stride

    @property
    def tiles(self) -> Grid:
        """The tiles of this pass."""
        return Grid(self.plane.shape, self.tile_px)

    @property
    def shards(self) -> Grid:
        """The shards of this pass, in scores."""
        return Grid(self.score_shape, self.shard_px)

    @property
    def shard_tiles(self) -> int:
        """Side of a shard, in tiles."""
        return self.region_px // self.tile_px

    def scores_of(self, box: Box) -> Box:
        """The scores of a box of input pixels, cut off at the edge of the scores."""
        return box.reduce(self.stride).clip(self.score_shape)

    def unit_nbytes(self, itemsize: int) -> int:
        """Host memory of what a unit answers for, with scores of so many bytes each."""
        per_score = len(self.classes) * itemsize + len(self.planes)
        features = self.gives.nbytes_per_px() if self.gives else 0
        return self.shard_px**2 * per_score + math.ceil(self.region_px**2 * features)

    def to_dict(self) -> dict[str, Any]:
        """As written to the image's plan."""
        return asdict(self) | {"plane": self.plane.to_dict()}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> PassLayout:
        """The inverse of ``to_dict``, through JSON as well; plans of earlier versions included."""
        stated = (key for key in ("classes", "context", "bands") if tree.get(key) is not None)
        tuples = {key: tuple(tree[key]) for key in stated}
        grids = {key: FeatureGrid.from_dict(tree.get(key)) for key in ("gives", "takes")}
        plane, inputs = PlaneSpec.from_dict(tree["plane"]), Inputs.from_dict(tree.get("inputs"))
        return cls(**(tree | tuples | grids | {"plane": plane, "inputs": inputs}))


def lay_out(
    recipe: PassRecipe,
    index: int,
    plane: PlaneSpec,
    spec: ModelSpec,
    output: Output,
    *,
    capacity: Capacity = ANY_DEVICE,
    precision: Arithmetic = "float32",
    flow: FeatureFlow = NO_FLOW,
) -> PassLayout:
    """Decide a pass's layout over one image.

    Args:
        recipe: the pass.
        index: its position in the recipe.
        plane: the image at its resolution.
        spec: what its model declares.
        output: how scores are stored.
        capacity: of the device, for what the recipe leaves open.
        precision: arithmetic of the model.
        flow: features that it gives and takes.

    Raises:
        PlanError: the recipe's tile, halo and shard do not fit the model or each other.
    """
    multiple = math.lcm(spec.stride, spec.multiple, *flow.strides)
    halo_px = round_up(spec.halo_px if recipe.halo == "auto" else recipe.halo, multiple)
    one_window = _fits_one_window(recipe, index, plane, spec, multiple, capacity)
    tile_px = _tile(recipe, plane, multiple, one_window)
    if recipe.tile == "auto" and spec.local and not one_window:
        tile_px = _smaller_tile(tile_px, halo_px, multiple, capacity)
    _check_sizes(recipe, tile_px, multiple)
    chunk_px = _chunk(output.chunk, tile_px, spec.stride)
    merge = _merges(recipe, spec)
    layout = PassLayout(
        name=recipe.name,
        index=index,
        plane=plane,
        classes=spec.classes,
        stride=spec.stride,
        multiple=multiple,
        halo_px=halo_px,
        tile_px=tile_px,
        window_tiles=0 if one_window else _window_tiles(recipe, tile_px, halo_px, merge, capacity),
        batch=1,
        chunk_px=chunk_px,
        shard_px=math.lcm(chunk_px, tile_px // spec.stride),
        blend=recipe.blend,
        merge=merge,
        saliency=spec.saliency,
        confidence=spec.confidence,
        context=recipe.context or spec.context,
        guidance=recipe.guidance,
        gives=flow.gives,
        takes=flow.takes,
        local=spec.local,
        precision=precision,
    )
    return replace(
        layout,
        batch=1 if one_window else _batch(recipe, layout, capacity),
        shard_px=_grow_shard(layout, output),
    )


def _batch(recipe: PassRecipe, layout: PassLayout, capacity: Capacity) -> int:
    suits_px = min(capacity.batch_px, capacity.most_px)
    return batch_for(layout, suits_px) if recipe.batch == "auto" else recipe.batch


def _check_sizes(recipe: PassRecipe, tile_px: int, multiple: int) -> None:
    if tile_px % multiple:
        low = max(multiple, tile_px // multiple * multiple)
        raise PlanError(
            f"pass {recipe.name!r}: tile must be a multiple of {multiple} (the model's stride and "
            f"multiple together); found {tile_px}, near are {low} and {low + multiple}"
        )


def batch_for(layout: PassLayout, batch_px: int) -> int:
    """Windows of a layout that make up about so many pixels, halos included; at least one."""
    side = max(1, layout.window_tiles) * layout.tile_px + 2 * layout.halo_px
    return max(1, batch_px // side**2)


def _merges(recipe: PassRecipe, spec: ModelSpec) -> bool:
    """Whether neighbouring tiles may share a window.

    They may not where the answer depends on the window itself: context views are centred on it,
    Hann flanks belong to a tile. A model without an exact halo is given single tiles, of the one
    size that it may be made for, unless the recipe states a window.
    """
    alone = spec.context or recipe.context or recipe.blend != "crop"
    return (spec.local or recipe.window != "auto") and not alone


def _fits_one_window(
    recipe: PassRecipe,
    index: int,
    plane: PlaneSpec,
    spec: ModelSpec,
    multiple: int,
    capacity: Capacity,
) -> bool:
    """A small enough glance is one forward pass: no halo at all, nothing to stitch."""
    height, width = (round_up(side, multiple) for side in plane.shape)
    left_open = recipe.tile == recipe.window == "auto" and recipe.blend == "crop"
    dense = spec.stride <= TILE_PX // 16 and not (spec.context or recipe.context)
    small = height * width <= capacity.whole_px and capacity.holds(height, width)
    return index == 0 and left_open and dense and small


def _tile(recipe: PassRecipe, plane: PlaneSpec, multiple: int, one_window: bool) -> int:
    if recipe.tile != "auto":
        return recipe.tile
    if not one_window:
        return round_up(TILE_PX, multiple)
    # Damage is told tile by tile, so a small pass needs small tiles to lose little of itself.
    side = 2 ** max(4, (max(plane.shape) // TILES_PER_GLANCE).bit_length())
    return round_up(min(side, TILE_PX), multiple)


def _smaller_tile(tile_px: int, halo_px: int, multiple: int, capacity: Capacity) -> int:
    """Half of a tile, as often as it takes to fit the memory; a smallest tile may still not."""
    while not capacity.holds(*[tile_px + 2 * halo_px] * 2):
        half, odd = divmod(tile_px, 2)
        if odd or half % multiple or half < LEAST_TILE_PX:
            break
        tile_px = half
    return tile_px


def _window_tiles(
    recipe: PassRecipe, tile_px: int, halo_px: int, merge: bool, capacity: Capacity
) -> int:
    if not merge:
        return 1
    if recipe.window != "auto":
        return max(1, recipe.window // tile_px)
    tiles = max(1, WINDOW_PX // tile_px)
    while tiles > 1 and not capacity.holds(*[tiles * tile_px + 2 * halo_px] * 2):
        tiles //= 2
    return tiles


def _chunk(stated_px: int, tile_px: int, stride: int) -> int:
    """A side near the stated one that nests with the tile, so that shards hold whole tiles."""
    # Where a score stands for many pixels, a chunk of the usual side would be a whole image.
    wanted_px = max(CHUNK_MIN_PX, min(stated_px, REGION_PX // stride))
    tile_scores = tile_px // stride
    if tile_scores >= wanted_px:
        return wanted_px if tile_scores % wanted_px == 0 else tile_scores
    return max(1, round(wanted_px / tile_scores)) * tile_scores


def _grow_shard(layout: PassLayout, output: Output) -> int:
    """The largest shard that keeps units small, many, and within the recipe's own limit."""
    itemsize = np.dtype(output.scores).itemsize
    height, width = layout.score_shape
    side = layout.shard_px
    while (
        side * 2 <= max(output.shard, layout.shard_px)
        and side * 2 * layout.stride <= max(REGION_PX, layout.region_px)
        and replace(layout, shard_px=side * 2).unit_nbytes(itemsize) <= UNIT_BYTES
        and math.ceil(height / (side * 2)) * math.ceil(width / (side * 2)) >= UNITS_PER_PASS
    ):
        side *= 2
    return side
