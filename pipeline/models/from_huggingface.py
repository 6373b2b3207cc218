"""Vision models of Hugging Face transformers: segmentation, tile classification, backbones.

T. Wolf et al., Transformers: State-of-the-Art Natural Language Processing, EMNLP 2020 (system
demonstrations), arXiv 1910.03771. Code that a checkpoint brings is never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.borrowing import (
    Borrowed,
    Wanted,
    activation_for,
    first_line,
    sees_all,
)
from saccade.pipeline.models.dense_head import DenseHead
from saccade.pipeline.models.extras import imported
from saccade.pipeline.models.hf_checkpoint import (
    checkpoint_folder,
    has_weights,
    preparation,
    prepared_side,
)

TASKS = {
    "segmentation": "AutoModelForSemanticSegmentation",
    "classification": "AutoModelForImageClassification",
    "backbone": "AutoBackbone",
}
"""What a model is loaded for, and the class of transformers that does it."""
ENDINGS = {"ForSemanticSegmentation": "segmentation", "ForImageClassification": "classification"}
OWN = ("config", "pretrained", "revision", "task", "tile", "upsample")
LARGEST_STRIDE = 32
"""What inputs are multiples of where a configuration does not say."""


def from_huggingface(wanted: Wanted) -> Borrowed:
    """The checkpoint, in a folder or of the hub, or a model of this type without weights.

    Options: ``task`` (segmentation, classification, backbone; by default what the checkpoint was
    saved as), ``revision``, ``upsample: true`` (logits at the input's size instead of at their own
    stride), ``tile`` (side of a classifier's tile), ``pretrained: false`` (weights drawn from the
    seed, or from the recipe's file) and, for a type such as ``hf:segformer``, ``config``.

    Raises:
        ModelNotFound: transformers, the checkpoint or its weights are missing.
        ModelContract: an option is wrong, or the checkpoint does not fill the model.
    """
    transformers = imported("transformers", "huggingface")
    unknown = wanted.others(*OWN)
    if unknown:
        raise ModelContract(f"{wanted.source} takes options {list(OWN)}; found {sorted(unknown)}")
    folder = checkpoint_folder(wanted)
    plan = _planned(transformers, wanted, folder)
    model = _loaded(transformers, wanted, plan)
    return {
        "segmentation": _segmentation,
        "classification": _classification,
        "backbone": _backbone,
    }[plan.task](wanted, plan, model)


@dataclass(frozen=True)
class _Plan:
    """What is to be loaded."""

    config: Any
    """Of transformers."""
    task: str
    """One of ``TASKS``."""
    folder: Path | None
    """Of the checkpoint; None where there is none."""
    drawn: bool
    """Whether weights are drawn or come from the recipe's file, not from the checkpoint."""

    @property
    def channels(self) -> int:
        """Input channels."""
        return int(getattr(self.config, "num_channels", 3))


def _planned(transformers: ModuleType, wanted: Wanted, folder: Path | None) -> _Plan:
    config = _config(transformers, wanted, folder)
    task = wanted.option("task", str, None) or _saved_task(config)
    if task not in TASKS:
        raise ModelContract(
            f"{wanted.source}: option 'task' is one of {list(TASKS)}; found {task!r}"
        )
    drawn = wanted.weights is not None or not wanted.option("pretrained", bool, True)
    if not drawn and not (folder and has_weights(folder)):
        raise ModelNotFound(
            f"{wanted.source}: weights expected as .safetensors in {folder}; found none: save the "
            "model with save_pretrained(..., safe_serialization=True), or say 'pretrained: false'"
        )
    return _Plan(config, task, folder, drawn)


def _config(transformers: ModuleType, wanted: Wanted, folder: Path | None) -> Any:
    """The configuration, with as many labels as the recipe names where weights are not given."""
    changes = dict(wanted.option("config", dict, {}))
    drawn = wanted.weights is not None or not wanted.option("pretrained", bool, True)
    if drawn and wanted.count is not None:
        changes["num_labels"] = wanted.count
    try:
        if folder is None:
            return transformers.AutoConfig.for_model(wanted.name, **changes)
        return transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **changes
        )
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelNotFound(
            f"{wanted.source}: a checkpoint, or a type of model that transformers "
            f"{transformers.__version__} knows, expected; {first_line(error)[:200]}"
        ) from error


def _saved_task(config: Any) -> str | None:
    names = getattr(config, "architectures", None) or []
    return next((task for end, task in ENDINGS.items() for n in names if n.endswith(end)), None)


def _loaded(transformers: ModuleType, wanted: Wanted, plan: _Plan) -> Any:
    auto = getattr(transformers, TASKS[plan.task])
    try:
        if plan.drawn:
            return auto.from_config(plan.config).float()
        transformers.utils.logging.disable_progress_bar()
        model, info = auto.from_pretrained(
            plan.folder,
            config=plan.config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelContract(
            f"{wanted.source}: transformers can't load it for {plan.task}: "
            f"{first_line(error)[:300]}"
        ) from error
    missing = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if missing:
        raise ModelContract(
            f"{wanted.source}: a checkpoint that fills the model expected; {len(missing)} weights "
            f"are missing ({', '.join(missing[:3])}): choose the 'task' that it was trained for"
        )
    return model.float()


# ----------------------------------------------------------------------------------- by task


def _declared(wanted: Wanted, plan: _Plan, count: int) -> dict[str, Any]:
    labels = [plan.config.id2label[index] for index in range(count)]
    named = {} if labels == [f"LABEL_{index}" for index in range(count)] else {"classes": labels}
    if len(set(labels)) < count:
        named = {}
    return {
        **named,
        "channels": plan.channels,
        "activation": activation_for(count),
        **preparation(plan.folder),
    }


class Segmenter(nn.Module):
    """A segmentation model's logits, at their own stride or at the input's size."""

    def __init__(self, model: Any, *, upsampled: bool) -> None:
        super().__init__()
        self.model, self.upsampled = model, upsampled

    def forward(self, x: Tensor) -> Tensor:
        """``(N, classes, h, w)``."""
        logits: Tensor = self.model(pixel_values=x).logits
        if not self.upsampled:
            return logits
        size = x.shape[-2:]
        return nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _segmentation(wanted: Wanted, plan: _Plan, model: Any) -> Borrowed:
    module = Segmenter(model, upsampled=wanted.option("upsample", bool, False))
    declaration = _declared(wanted, plan, int(plan.config.num_labels))
    declaration["multiple"] = _multiple(plan.config)
    local = {"local": False} if sees_all(model) else {}
    return Borrowed(module, declaration | local, model)


class Classifier(nn.Module):
    """A classifier's logits for a whole tile."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """``(N, classes)``."""
        logits: Tensor = self.model(pixel_values=x).logits
        return logits


def _classification(wanted: Wanted, plan: _Plan, model: Any) -> Borrowed:
    side = (
        wanted.option("tile", int, None)
        or prepared_side(plan.folder)
        or _square(getattr(plan.config, "image_size", None))
    )
    if side is None:
        raise ModelContract(
            f"{wanted.source}: the checkpoint does not say how large its images are; state "
            "'options: {tile: ...}', in pixels"
        )
    declaration = _declared(wanted, plan, int(plan.config.num_labels))
    return Borrowed(Classifier(model), declaration | {"stride": side, "multiple": side}, model)


def _backbone(wanted: Wanted, plan: _Plan, model: Any) -> Borrowed:
    if wanted.count is None:
        raise ModelContract(
            f"{wanted.source}: a linear head over features needs to know what it scores: state "
            "'classes'"
        )
    channels, multiple = int(model.channels[-1]), _multiple(plan.config)
    stride = _feature_stride(model, plan.channels, multiple)
    head = DenseHead(model, _last_map, channels, wanted.count)
    declaration = {
        "channels": plan.channels,
        "activation": activation_for(wanted.count),
        "stride": stride,
        "multiple": max(stride, multiple),
        "features": (channels, stride),
        **preparation(plan.folder),
    }
    local = {"local": False} if sees_all(model) else {}
    return Borrowed(head, declaration | local, head if plan.drawn else head.head)


def _last_map(output: Any) -> Tensor:
    found: Tensor = output.feature_maps[-1]
    return found


@torch.inference_mode()
def _feature_stride(model: Any, channels: int, multiple: int) -> int:
    """Input pixels per place of the last feature map, seen on a small input."""
    side = max(2 * multiple, 64 // multiple * multiple)
    answer = model.eval()(torch.zeros(1, channels, side, side))
    return side // int(answer.feature_maps[-1].shape[-1])


def _multiple(config: Any) -> int:
    """What inputs are multiples of: a transformer's patch, otherwise the usual five halvings."""
    patch = getattr(config, "patch_size", None)
    plain = isinstance(patch, int) and getattr(config, "depths", None) is None
    return int(patch) if plain and patch else LARGEST_STRIDE


def _square(size: Any) -> int | None:
    if isinstance(size, list | tuple):
        size = size[0]
    return int(size) if isinstance(size, int) else None
