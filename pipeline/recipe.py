"""The recipe: what to run, as one frozen tree that can't be wrong.

Parsing YAML and naming lines is ``recipe_file``'s job; this module knows values only, no file, no
image and no device. Every field's description is what ``saccade schema`` shows to an editor.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from saccade.pipeline.exit_rules import ExitRule, check_exits
from saccade.pipeline.models.base import Activation, SaliencyChoice
from saccade.pipeline.normalising import Nodata, Normalise, standardises
from saccade.pipeline.selectors import AllTiles, Selector

Fuse = Literal["finest", "mean", "mean_logit", "max", "residual", "confidence_gated"]
ScoreType = Literal["uint8", "float16", "float32"]
Overviews = Literal["averaged", "stored"]
Bands = tuple[Annotated[int, Field(ge=1)] | str, ...]
Precision = Literal["float32", "bfloat16", "float16", "auto"]
Share = Annotated[float, Field(ge=0, le=1)]
ONLY = "only"
"""In changes for one image: names of the passes that run."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Node(BaseModel):
    """A part of the recipe: frozen, and no key but the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Resolution(Node):
    """How finely a pass looks: exactly one of the five.

    A bare ``auto`` is short for ``{auto: {}}``.
    """

    mpp: float | None = Field(None, gt=0)
    """Micrometres per pixel."""
    gsd: float | None = Field(None, gt=0)
    """Ground sampling distance: metres per pixel. Of a projected image in the projection's own
    metres (Web Mercator's are true at the equator only), of a geographic one at its middle
    latitude."""
    downsample: float | None = Field(None, ge=1)
    """Pixels of the image's finest level per pixel of the pass."""
    level: int | None = None
    """A level of the image's own pyramid; 0 is the finest, -1 the coarsest."""
    auto: Bounds | None = None
    """For the glance: the finest at which the whole image fits in one forward pass."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"auto": {}} if value == "auto" else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Resolution:
        stated = self.model_dump(exclude_none=True)
        if len(stated) != 1:
            found = ", ".join(stated) or "none"
            raise ValueError(
                f"state exactly one of mpp, gsd, downsample, level, auto; found {found}"
            )
        return self

    def __str__(self) -> str:
        if self.auto is not None:
            return "auto"
        ((key, value),) = self.model_dump(exclude_none=True).items()
        return f"{key} {value:g}"

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"const": "auto"}, handler.resolve_ref_schema(handler(core))]}


class Bounds(Node):
    """Between which resolutions ``auto`` may choose."""

    finest: Resolution | None = None
    """By default a quarter of the next pass's resolution; of a single pass, the image's own."""
    coarsest: Resolution | None = None
    """By default, where the image's longer side is 256 pixels."""

    @model_validator(mode="after")
    def _stated_outright(self) -> Bounds:
        if any(one and one.auto for one in (self.finest, self.coarsest)):
            raise ValueError(
                "bounds of auto are stated as mpp, gsd, downsample or level; found auto"
            )
        return self


Resolution.model_rebuild()


class ModelRecipe(Node):
    """Which model, its weights, and whatever it does not declare about itself.

    A bare string is short for ``{source: ...}``.
    """

    source: str = Field(min_length=1)
    """'builtin:NAME', 'file.py:factory', 'package.module:factory', a TorchScript file, a
    torch.export archive (.pt2), an ONNX file (.onnx), or a model of another library: 'timm:NAME',
    'hf:NAME' or 'hf:FOLDER', 'smp:NAME'. Paths are relative to the recipe."""
    weights: str | None = None
    """A .safetensors file, or a .pt file that holds tensors only."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for the factory or the built-in model."""
    classes: tuple[str, ...] | None = None
    """Name of each score channel."""
    halo: int | Literal["auto"] | None = None
    """Context needed for exact answers, in input pixels; 'auto' measures it by perturbation."""
    stride: int | None = Field(None, ge=1)
    """Input pixels per output pixel."""
    multiple: int | None = Field(None, ge=1)
    """Input sizes and origins must be multiples of this."""
    channels: int | None = Field(None, ge=1)
    """Input channels."""
    activation: Activation | None = None
    """'softmax' or 'sigmoid' where the module gives logits; 'none' where it gives probabilities."""
    mean: tuple[float, ...] | None = None
    """Per channel, subtracted after scaling to [0, 1]."""
    std: tuple[float, ...] | None = None
    """Per channel, divided by after the mean."""
    scale: float | None = Field(None, gt=0)
    """Samples are divided by this first; by default the dtype's maximum, or 1 for floats."""
    guidance: bool | None = None
    """Whether the module takes ``guidance=``."""
    context: tuple[float, ...] | None = None
    """Extra fields of view that the module takes as ``context=``, each so many times coarser."""
    saliency: SaliencyChoice | None = None
    """Where saliency comes from: the model's 'own', 'confidence' (1 less it), or 'attention' (its
    rollout); by default the model's own where it has one."""
    normalise: Normalise | None = None
    """What samples become before the model, by numbers that are measured once per image over the
    valid pixels of the glance, or fixed: never per tile. By default divided by 'scale'. 'standard'
    and a fixed mean replace the model's own mean and std; the others come before them."""
    nodata: Nodata = "fill"
    """What the model sees where there is no data: 'fill', the mean of the band's valid pixels in
    the glance (of a fixed mean, that); 'keep', the samples as they are stored."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _normalised_once(self) -> ModelRecipe:
        ways = ("scale", "mean", "std") if standardises(self.normalise) else ("scale",)
        twice = [way for way in ways if getattr(self, way) is not None]
        if self.normalise is not None and twice:
            raise ValueError(
                f"normalise takes the place of {', '.join(twice)}; found both: state one of them"
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler.resolve_ref_schema(handler(core))]}


class PassRecipe(Node):
    """One sweep of one model at one resolution over a selection of tiles."""

    name: Name
    """Names the pass in the result, in messages and in overrides."""
    resolution: Resolution
    """How finely it looks."""
    model: ModelRecipe
    """What looks."""
    bands: Bands | None = Field(None, min_length=1)
    """What the model is given of the image, in this order: names of bands, or numbers counted from
    1 as GDAL and rasterio count them. By default all."""
    scaled: bool = False
    """Give the model samples times their band's scale plus its offset, as the file states them;
    by default they are given as stored. Means are taken of these, so that those of whole numbers
    are not rounded: a mask of 0 and 1 becomes a share of land."""
    tile: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Side of the tiles that are selected and answered for, in pixels of this pass."""
    halo: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """Context read around a window and cropped away; 'auto' is what the model needs."""
    window: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Longest side of a window of merged tiles, in pixels without halo."""
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Windows per forward pass."""
    blend: Literal["crop", "hann"] = "crop"
    """How windows meet: the halo is cropped (exact), or overlapping windows are averaged."""
    select: Selector = AllTiles()
    """Which tiles this pass visits, judged by the previous pass; the first pass visits all."""
    guidance: bool = False
    """Give the model the previous pass's scores, upsampled."""
    features: bool = False
    """Give the model what the encoder of the previous pass's model found."""
    context: tuple[Annotated[float, Field(gt=1)], ...] = ()
    """Extra fields of view, each so many times coarser than the window and centred on it."""
    exit: ExitRule | None = None
    """Which of its tiles no later pass looks at, because this pass's answer is good enough."""


class Output(Node):
    """What is stored, and how."""

    classes: tuple[str, ...] | None = None
    """Classes of the fused result; by default those of the last pass."""
    scores: ScoreType = "uint8"
    """Type of stored scores; uint8 holds probabilities times 255."""
    chunk: int = Field(512, ge=16)
    """Side of the smallest stored piece, in pixels."""
    shard: int = Field(4096, ge=16)
    """Longest side of a file that holds many chunks, in pixels; smaller where a pass is small."""
    keep: Literal["all"] | tuple[str, ...] = "all"
    """Passes whose own arrays stay in the result once it is complete."""
    keep_features: bool = False
    """Whether features that passes handed on stay there, too."""
    label_threshold: Share = 0.5
    """A single class is labelled where its score is at least this."""

    @model_validator(mode="after")
    def _whole_chunks(self) -> Output:
        ratio, rest = divmod(self.shard, self.chunk)
        if rest or ratio & (ratio - 1):
            raise ValueError(
                f"shard must be chunk times a power of two; found shard {self.shard}, "
                f"chunk {self.chunk}"
            )
        return self


class Tolerance(Node):
    """How far ``precision: auto`` may stray from float32, on the image's own tiles."""

    mean: float = Field(0.002, ge=0)
    """Mean absolute difference of scores; the default is half a step of a uint8 score."""
    labels: Share = 0.999
    """Share of pixels that keep their label."""


class AreaOfInterest(Node):
    """Where passes may look at all: polygons. A bare path is short for ``{file: PATH}``."""

    file: str
    """GeoJSON or GeoPackage, in any CRS; a relative path begins at the recipe's own folder."""
    digest: str | None = None
    """Of the file's bytes; stated by a run, so that another area is another run."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class Recipe(Node):
    """What to run: passes from coarse to fine, how they are fused, what is stored."""

    version: Literal[1] = 1
    """Version of the recipe's own format."""
    passes: tuple[PassRecipe, ...] = Field(min_length=1, max_length=32)
    """From coarse to fine; the first is the glance."""
    fuse: Fuse = "finest"
    """How a finer answer meets the coarser one."""
    output: Output = Output()
    """What is stored, and how."""
    precision: Precision = "float32"
    """Arithmetic of the models; float32 is the reference. 'auto' measures, per pass, which
    arithmetic, memory format, window and batch are the fastest within the tolerance."""
    tolerance: Tolerance = Tolerance()
    """What 'precision: auto' may change."""
    overviews: Overviews = "averaged"
    """What coarse passes read of a raster whose overviews are not known to be made of all its
    pixels: means of level 0, 'averaged' once per image, or the file's own as 'stored'."""
    max_bad_tiles: Share = 0.05
    """An image fails when a larger share of a pass's tiles can't be read."""
    mask: str | None = None
    """An image over the whole of the one that is run; passes after the glance look only where its
    first channel is not 0. Usually stated per image, in a manifest."""
    area: AreaOfInterest | None = None
    """Polygons that no pass looks beyond, the first one neither; tiles outside cost nothing, but
    where the statistics of bands are asked for: these are those of the whole image."""

    @model_validator(mode="after")
    def _passes_fit_together(self) -> Recipe:
        names = [p.name for p in self.passes]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"pass names must differ; found twice: {', '.join(twice)}")
        _first_pass_is_a_glance(self.passes[0])
        _later_passes_state_their_resolution(self.passes[1:])
        check_exits([one.exit for one in self.passes])
        if self.output.keep != "all" and not set(self.output.keep) <= set(names):
            raise ValueError(f"output.keep must name passes of {names}; found {self.output.keep}")
        return self

    def fingerprint(self) -> str:
        """Hash of every value in the tree; equal for equal recipes, however they were written."""
        return hashlib.blake2b(self.canonical_json().encode(), digest_size=16).hexdigest()

    def canonical_json(self) -> str:
        """The whole tree with defaults spelled out, keys sorted."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def glancing_at(self, downsample: float) -> Recipe:
        """This recipe with its first pass at a resolution."""
        first, *later = self.passes
        glance = first.model_copy(update={"resolution": Resolution(downsample=downsample)})
        return self.model_copy(update={"passes": (glance, *later)})

    def overridden(self, overrides: dict[str, Any]) -> Recipe:
        """This recipe with some values replaced for one image.

        Args:
            overrides: a tree shaped like the recipe, except that ``passes`` maps names to changes,
                ``{"passes": {"refine": {"tile": 256}}}``, and that ``only`` names the passes that
                run.

        Raises:
            KeyError: a pass of that name does not exist.
            pydantic.ValidationError: the changed recipe is not valid.
        """
        if not overrides:
            return self
        tree = self.model_dump(mode="json")
        changes = {k: v for k, v in overrides.items() if k not in ("passes", ONLY)}
        by_name = {p["name"]: p for p in tree["passes"]}
        for name, change in overrides.get("passes", {}).items():
            _merge(by_name[name], change)
        _merge(tree, changes)
        if ONLY in overrides:
            _keep_only(tree, [by_name[name]["name"] for name in overrides[ONLY]])
        return Recipe.model_validate(tree)


def _first_pass_is_a_glance(glance: PassRecipe) -> None:
    if not isinstance(glance.select, AllTiles):
        raise ValueError(
            f"the first pass has no earlier answer to select from; remove passes[0].select "
            f"(found {glance.select.by!r}) or put a coarser pass before it"
        )
    if glance.guidance:
        raise ValueError("the first pass has no earlier answer to be guided by; remove guidance")
    if glance.features:
        raise ValueError("the first pass has no earlier pass to take features of; remove features")
    if glance.resolution.auto and not glance.tile == glance.window == "auto":
        raise ValueError(
            "resolution: auto looks at the whole image in one forward pass; remove tile and "
            "window, or state the resolution"
        )


def _later_passes_state_their_resolution(later: tuple[PassRecipe, ...]) -> None:
    for one in later:
        if one.resolution.auto:
            raise ValueError(
                f"resolution: auto is for the first pass, which sees the whole image; state the "
                f"resolution of {one.name!r}"
            )


def _keep_only(tree: dict[str, Any], names: list[str]) -> None:
    """Leave passes out, in place; the rest stays in the recipe's order."""
    tree["passes"] = [one for one in tree["passes"] if one["name"] in names]
    if tree["output"]["keep"] != "all":
        tree["output"]["keep"] = [name for name in tree["output"]["keep"] if name in names]


def _merge(tree: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change values in place; a resolution, or a selector with its kind, is replaced as a whole."""
    for key, value in changes.items():
        old = tree.get(key)
        whole = key == "resolution" or (isinstance(value, dict) and "by" in value)
        if isinstance(old, dict) and isinstance(value, dict) and not whole:
            _merge(old, value)
        else:
            tree[key] = value
