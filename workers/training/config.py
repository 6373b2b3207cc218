"""What to train on what: one frozen tree, as a recipe is. Knows values only, no file and no tensor.

Every default is stated here; reading YAML and naming lines is ``recipe_file``'s job.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from saccade.pipeline.recipe import (
    Bands,
    ModelRecipe,
    Name,
    Node,
    Overviews,
    PassRecipe,
    Recipe,
    Resolution,
    Share,
)

Factor = Annotated[float, Field(ge=0)]
DEFAULT_WEIGHTS = (0.2, 0.3, 0.5)
"""Of the losses of three passes, from coarse to fine."""
NOT_IDENTITY = frozenset({"output", "card", "readers", "device"})
"""Settings that do not decide the weights."""


class Data(Node):
    """Images, their truth, and which of them are for what. Paths are relative to the file."""

    images: str
    """A manifest (CSV or JSON lines), or a folder or glob of images."""
    truth: str
    """A truth file (YAML)."""
    split: str
    """A CSV file with the columns ``name`` and ``part``."""
    train: str = "train"
    """The part that is learned from."""
    validation: str | None = "validation"
    """The part that the metrics of the card are measured on; nothing is where it is null."""


class TrainPass(Node):
    """One pass: what it looks at, and how much its mistakes count."""

    name: Name
    """Names the pass in the schedule, the log and the card."""
    resolution: Resolution
    """How finely it looks."""
    bands: Bands | None = Field(None, min_length=1)
    """What it is given of the images, as in a recipe; by default all bands."""
    scaled: bool = False
    """Whether it is given samples times their band's scale plus its offset, as in a recipe."""
    crop: int = Field(256, ge=8)
    """Side of its crops, in pixels of this pass; less where the image is smaller."""
    loss_weight: float | None = Field(None, ge=0)
    """Share of its loss; by default 0.2, 0.3, 0.5 of three passes, else equal shares."""
    learning_rate: float = Field(1.0, gt=0)
    """Factor on the learning rate. Where passes share their weights it scales their loss."""
    guidance: bool = True
    """Whether it is guided by the pass before it, where its model takes guidance."""
    model: ModelRecipe | None = None
    """A model of its own; by default the one of all passes."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the common model that differ in this pass, as ``depth`` may."""

    @model_validator(mode="after")
    def _resolution_is_stated(self) -> TrainPass:
        if self.resolution.auto is not None:
            raise ValueError("training needs a resolution stated outright; found auto")
        return self


class Sampling(Node):
    """Which crops are seen. A group is one crop per pass, all around one centre."""

    groups: int = Field(6, ge=1)
    """Groups per step."""
    lesion_share: Share = 0.5
    """Share of groups centred on truth, where an image has any: classes alike, then pixels."""
    hard_share: Share = 0.25
    """Share of groups centred where the glance was sure and wrong; refreshed every round."""
    per_image: int = Field(8, ge=1)
    """Groups drawn each time an image is opened; a round opens every image once."""
    images_mixed: int = Field(8, ge=1)
    """Groups of so many images wait in the pool that steps draw from."""
    pool_mib: int = Field(512, ge=1)
    """The pool holds at most this much."""
    jitter: Share = 0.25
    """Centres are moved by up to this share of the finest crop."""


class Stage(Node):
    """A part of the schedule."""

    steps: int = Field(ge=1)
    """How long it lasts."""
    train: tuple[str, ...] = Field(min_length=1)
    """Passes that learn. Those below the finest of them only answer; finer ones rest."""


class Optimiser(Node):
    """AdamW with a linear warm-up and a cosine down to nearly nothing."""

    learning_rate: float = Field(2e-3, gt=0)
    """At its highest."""
    weight_decay: Factor = 0.01
    """Of matrices and kernels; biases and norms have none."""
    warmup: int = Field(50, ge=0)
    """Steps until the learning rate is at its highest."""
    final: Share = 0.01
    """Share of the learning rate that is left at the last step."""
    clip: float | None = Field(1.0, gt=0)
    """Longest gradient (its norm over all weights)."""
    freeze_norm_after: Share = 0.6
    """Share of the steps after which batch norms answer as they will in a run."""


class Augment(Node):
    """Changes that do not change what is seen; the same for all crops of a group."""

    flips: bool = True
    """Up-down and left-right."""
    rotations: bool = True
    """By right angles; whole steps are turned, so that oblong crops need no padding."""
    colour: Share = 0.1
    """Largest relative change of brightness, contrast and every channel."""
    scale: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Largest relative change of size; the model is told the pixel size that was asked for."""


class LossRecipe(Node):
    """How an answer is compared with its truth."""

    kind: Literal["bce", "focal"] = "bce"
    """Binary cross-entropy per class, or the focal loss (Lin et al., arXiv 1708.02002)."""
    dice: Factor = 0.0
    """Weight of a soft Dice loss (Milletari et al., arXiv 1606.04797) that is added."""
    positive_weight: Annotated[float, Field(gt=0)] | tuple[float, ...] = 1.0
    """How much more a pixel of a class counts than one outside; one number, or one per class."""
    gamma: Factor = 2.0
    """Focus of the focal loss."""


class Heads(Node):
    """What a model is taught about itself, where it answers that."""

    gain: Factor = 0.1
    """Weight of the loss of ``saliency``, which is taught the gain that was measured."""
    gain_scale: float = Field(0.05, gt=0)
    """Gain, in nats per finer score, that counts as 63 %."""
    confidence: Factor = 0.1
    """Weight of the loss of ``confidence``, which is taught whether the label is right."""


class Distil(Node):
    """Answers of others as soft truth."""

    fine_to_coarse: Factor = 0.0
    """Weight of the finer pass's answer as the truth of the coarser one."""
    teacher: str | None = None
    """A run's folder whose results (of these images, by name) are soft truth for every pass."""
    teacher_weight: Factor = 1.0
    """Weight of the teacher's answers."""


class Output(Node):
    """What is left behind."""

    folder: str = "out"
    """Where; relative to the file."""
    every: int = Field(200, ge=1)
    """Steps from one checkpoint to the next."""
    keep: int = Field(2, ge=1)
    """Checkpoints that are kept, the last ones."""
    weights: Literal["float32", "float16"] = "float32"
    """Type of the weights that are given away."""
    validate_every: int = Field(0, ge=0)
    """Steps between two looks at the validation part; 0 looks at the end only."""
    validation_groups: int = Field(8, ge=1)
    """Groups per validation image, anywhere on its foreground, the same ones at every look."""


class Card(Node):
    """What the card says that nobody can measure."""

    title: str = "Weights"
    """Of the card."""
    licence: str = "not stated"
    """Of the weights."""
    data: str = "not stated"
    """What was learned from: name, authors, licence."""
    notes: str = ""
    """Anything else."""


class RayRecipe(Node):
    """Data-parallel training on a Ray cluster."""

    workers: int = Field(2, ge=1)
    """Processes that share the groups of every step."""
    address: str | None = None
    """Of the cluster; by default RAY_ADDRESS, else one is started here."""


class TrainRecipe(Node):
    """What to train, on what, and how."""

    version: Literal[1] = 1
    """Version of this format."""
    data: Data
    """What is learned from."""
    passes: tuple[TrainPass, ...] = Field(min_length=1, max_length=8)
    """From coarse to fine."""
    model: ModelRecipe | None = None
    """One model for all passes: they share its weights."""
    overviews: Overviews = "averaged"
    """What coarse passes read of rasters whose overviews leave pixels out, as in a recipe."""
    sampling: Sampling = Sampling()
    """Which crops are seen."""
    schedule: tuple[Stage, ...] = ()
    """Who learns when; by default the glance, every further pass alone, then all together."""
    optimiser: Optimiser = Optimiser()
    """How weights follow gradients."""
    guidance_dropout: Share = 0.5
    """Share of crops that are given no guidance, so that a pass can do without."""
    augment: Augment = Augment()
    """Changes to what is seen."""
    loss: LossRecipe = LossRecipe()
    """What counts as wrong."""
    heads: Heads = Heads()
    """What a model is taught about itself."""
    distil: Distil = Distil()
    """Soft truth."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Weights given away are a running mean of the last ones, with this memory; 0: the last."""
    seed: int = Field(0, ge=0)
    """Of every draw."""
    threads: int | None = Field(None, ge=1)
    """Of torch on a CPU; by default what torch chooses. Another number may change last bits."""
    readers: int = Field(2, ge=1)
    """Images read at once."""
    device: str = "auto"
    """'cpu', 'cuda', 'cuda:1'... or 'auto'."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward passes."""
    channels_last: bool = True
    """Whether weights lie in memory with their channels last."""
    ray: RayRecipe | None = None
    """By default one process trains alone."""
    output: Output = Output()
    """What is left behind."""
    card: Card = Card()
    """What the card says."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainRecipe:
        names = [one.name for one in self.passes]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"pass names must differ; found twice: {', '.join(twice)}")
        alone = [one.name for one in self.passes if one.model is None]
        if alone and self.model is None:
            raise ValueError(f"no model for {', '.join(alone)}; state 'model', or one per pass")
        unknown = sorted({name for stage in self.schedule for name in stage.train} - set(names))
        if unknown:
            raise ValueError(f"schedule names passes of {names}; found {', '.join(unknown)}")
        if self.sampling.lesion_share + self.sampling.hard_share > 1:
            raise ValueError("lesion_share and hard_share are shares of one whole; found more")
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The schedule, the default one spelled out."""
        if self.schedule:
            return self.schedule
        names = tuple(one.name for one in self.passes)
        alone = [Stage(steps=200, train=(name,)) for name in names[: max(1, len(names) - 1)]]
        return (*alone, Stage(steps=600, train=names))

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Of every pass."""
        count = len(self.passes)
        usual = DEFAULT_WEIGHTS if count == len(DEFAULT_WEIGHTS) else (1 / count,) * count
        stated = (one.loss_weight for one in self.passes)
        return tuple(u if s is None else s for s, u in zip(stated, usual, strict=True))

    def identity(self) -> dict[str, Any]:
        """What decides the weights, as JSON holds it."""
        tree = self.model_dump(mode="json", exclude=set(NOT_IDENTITY))
        _forget(tree, ("overviews",), Recipe)
        for one in tree["passes"]:
            _forget(one, ("bands", "scaled"), PassRecipe)
        return dict(json.loads(json.dumps(tree, sort_keys=True)))


def _forget(tree: dict[str, Any], words: Sequence[str], stated_by: type[Node]) -> None:
    """Leave words out, in place, that say what a recipe says without them."""
    for word in words:
        if tree[word] == stated_by.model_fields[word].default:
            del tree[word]
