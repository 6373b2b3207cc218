"""Segmentation networks of segmentation_models_pytorch: U-Net, FPN, DeepLabV3+ and their kin.

P. Iakubovskii, Segmentation Models Pytorch, 2019. Scores come at the input's size.
"""

from __future__ import annotations

from inspect import signature
from types import ModuleType
from typing import Any

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.borrowing import Borrowed, Wanted, activation_for, first_line
from saccade.pipeline.models.extras import imported

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""What smp's encoders are trained on; declared of three channels where weights say nothing."""

NOT_OPTIONS = ("encoder_weights", "activation", "aux_params", "classes")
"""What smp's networks take and a recipe says elsewhere, or not at all."""


def from_smp(wanted: Wanted) -> Borrowed:
    """The network of this name.

    Options: ``encoder_name`` and whatever else ``segmentation_models_pytorch.create_model`` takes;
    ``pretrained: true`` takes the encoder's ImageNet weights. The rest is drawn from the seed.

    Raises:
        ModelNotFound: the library is missing, it has no such network, or weights can't be had.
        ModelContract: an option is wrong.
    """
    smp = imported("segmentation_models_pytorch", "smp")
    given = {"in_channels": 3, "classes": wanted.count or 1, **wanted.others("pretrained")}
    encoder_weights = "imagenet" if wanted.option("pretrained", bool, False) else None
    if "encoder_weights" in given:
        raise ModelContract(f"{wanted.source}: say 'pretrained: true' instead of encoder_weights")
    _refuse_unknown(smp, wanted, given)
    try:
        model = smp.create_model(wanted.name, encoder_weights=encoder_weights, **given)
        preparation = _preparation(smp, given, encoder_weights)
    except OSError as error:
        raise ModelNotFound(
            f"{wanted.source}: pretrained weights expected from smp's source or its cache; "
            f"{first_line(error)}: connect once to fill the cache, or leave 'pretrained' out"
        ) from error
    except KeyError as error:
        raise ModelNotFound(f"{wanted.source}: {error.args[0]}") from error
    except Exception as error:
        raise ModelContract(
            f"{wanted.source}: smp can't build it with {given}: {first_line(error)}"
        ) from error
    declaration = {
        "channels": given["in_channels"],
        "activation": activation_for(given["classes"]),
        "multiple": int(model.encoder.output_stride),
        "stride": 1,
    }
    return Borrowed(model, declaration | preparation)


def _refuse_unknown(smp: ModuleType, wanted: Wanted, given: dict[str, Any]) -> None:
    """Refuse options that smp would pass over: only encoders of timm ('tu-...') take others."""
    kind = getattr(smp, wanted.name, None)
    if kind is None or str(given.get("encoder_name", "")).startswith("tu-"):
        return
    known = [name for name in signature(kind).parameters if name not in ("kwargs", *NOT_OPTIONS)]
    unknown = sorted(set(given) - {*known, "in_channels", "classes"})
    if unknown:
        raise ModelContract(
            f"{wanted.source} takes options pretrained, {', '.join(known)}; found {unknown}"
        )


def _preparation(
    smp: ModuleType, given: dict[str, Any], encoder_weights: str | None
) -> dict[str, Any]:
    """Mean, std and scale: those of the encoder's own weights, otherwise ImageNet's."""
    if given["in_channels"] != 3:
        return {}
    if encoder_weights is None:
        return IMAGENET
    name = given.get("encoder_name", "resnet34")
    stated = smp.encoders.get_preprocessing_params(name, pretrained=encoder_weights)
    highest = stated["input_range"][1]
    scale = {} if highest == 1 else {"scale": 255.0 / highest}
    return {"mean": tuple(stated["mean"]), "std": tuple(stated["std"])} | scale
