"""The models of all passes as they learn: built as a run builds them, weights shared where asked.

Passes that share weights may differ in options that change no weight (as ``depth`` may), and may
have parts that others lack: whatever bears the same name is one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract, RecipeError
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.models.wrap import TorchModel
from saccade.pipeline.recipe import ModelRecipe
from saccade.workers.training.config import TrainPass, TrainRecipe

COMMON = "model"
"""Names the weights that passes share."""
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
"""Layers that answer differently while they learn."""


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """The model of one pass."""

    name: str
    """Of the pass."""
    weights: str
    """Names its weights: 'model' where they are shared, else the pass."""
    model: TorchModel
    """As a run calls it; its module learns."""
    guided: bool
    """Whether it is given the previous pass's scores."""

    @property
    def spec(self) -> ModelSpec:
        """What it declares; without guidance where the pass has none."""
        return self.model.spec

    def mode(self, learns: bool, norms_frozen: bool) -> None:
        """Set its layers to learning or answering."""
        self.model.module.train(learns)
        if learns and norms_frozen:
            for layer in self.model.module.modules():
                if isinstance(layer, NORMS):
                    layer.eval()


class Learners:
    """The models of all passes."""

    def __init__(self, learners: tuple[Learner, ...]) -> None:
        """Take the models of all passes, from coarse to fine."""
        self.passes = learners

    def __iter__(self) -> Iterator[Learner]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __getitem__(self, index: int) -> Learner:
        return self.passes[index]

    @property
    def owners(self) -> dict[str, tuple[Learner, ...]]:
        """Per set of weights, the passes that use it."""
        names = dict.fromkeys(one.weights for one in self.passes)
        return {name: tuple(p for p in self.passes if p.weights == name) for name in names}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every weight that learns, once, by a name that tells its owner."""
        found: dict[str, nn.Parameter] = {}
        for one in self.passes:
            for name, weight in one.model.module.named_parameters():
                found.setdefault(f"{one.weights}/{name}", weight)
        return found

    def state(self) -> dict[str, Tensor]:
        """Every tensor of every module, once, by a name that tells its owner; not copied."""
        found: dict[str, Tensor] = {}
        for one in self.passes:
            for name, tensor in one.model.module.state_dict().items():
                found.setdefault(f"{one.weights}/{name}", tensor)
        return found

    def statistics(self) -> list[Tensor]:
        """What batch norms have seen, each once."""
        layers = [layer for one in self.passes for layer in one.model.module.modules()]
        held = (b for layer in layers if isinstance(layer, NORMS) for b in layer.buffers())
        return list({id(b): b for b in held if b.is_floating_point()}.values())

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put ``state()``'s tensors back, in place."""
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(state[name])

    def weights_of(self, name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One owner's tensors of a state, by the names that a module of it has."""
        prefix = f"{name}/"
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def build_learners(config: TrainRecipe, folder: Path, device: str) -> Learners:
    """Build the models of all passes.

    Args:
        config: what is trained.
        folder: relative paths of models start there.
        device: as torch names it.

    Raises:
        ModelContract: a model is no torch module with a sigmoid per class, or its crops do not fit.
        RecipeError: models and passes do not fit each other.
    """
    learners: list[Learner] = []
    for index, one in enumerate(config.passes):
        learner = _learner(config, one, index, folder, device)
        _check(one, learner.spec)
        for known in learners:
            if known.weights == learner.weights:
                _tie(learner.model.module, known.model.module)
        if learner.guided:
            _check_guided(learner, learners[-1])
        learners.append(learner)
    return Learners(tuple(learners))


def recipe_of(config: TrainRecipe, one: TrainPass) -> ModelRecipe:
    """What a pass's model is: its own, or the common one with the pass's options."""
    if one.model is not None:
        return one.model
    assert config.model is not None
    return config.model.model_copy(update={"options": {**config.model.options, **one.options}})


def _learner(config: TrainRecipe, one: TrainPass, index: int, folder: Path, device: str) -> Learner:
    model = load_model(recipe_of(config, one), base_folder=folder, device=device)
    if not isinstance(model, TorchModel) or model.per_tile:
        raise ModelContract(
            f"pass {one.name!r}: a torch module that answers for every pixel expected to train; "
            f"found {type(model).__name__}"
        )
    if config.channels_last:
        model.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.module.requires_grad_(True)
    guided = model.spec.guidance and one.guidance and index > 0
    spec = model.spec if guided else model.spec.with_(guidance=False)
    name = COMMON if one.model is None else one.name
    return Learner(one.name, name, TorchModel(model.module, spec), guided)


def _check(one: TrainPass, spec: ModelSpec) -> None:
    if spec.activation != "sigmoid":
        raise ModelContract(
            f"pass {one.name!r}: classes that are told apart one by one are trained: logits with "
            f"'activation: sigmoid' expected; found {spec.activation!r}"
        )
    if one.crop % spec.multiple or spec.multiple % spec.stride:
        raise RecipeError(
            f"pass {one.name!r}: crop must be a multiple of {spec.multiple}, as the model needs; "
            f"found {one.crop}"
        )


def _check_guided(learner: Learner, before: Learner) -> None:
    if learner.spec.classes != before.spec.classes:
        raise RecipeError(
            f"pass {learner.name!r}: guided by {before.name!r}, which must have the same classes "
            f"{learner.spec.classes}; found {before.spec.classes}"
        )


def _tie(module: nn.Module, other: nn.Module) -> None:
    """Give a module the tensors of another one, wherever names and shapes agree."""
    theirs = dict(other.named_modules())
    for path, part in module.named_modules():
        source = theirs.get(path)
        if source is None:
            continue
        for mine, given in (
            (part._parameters, source._parameters),
            (part._buffers, source._buffers),
        ):
            for name, tensor in given.items():
                held = mine.get(name)
                if held is not None and tensor is not None and held.shape == tensor.shape:
                    mine[name] = tensor
