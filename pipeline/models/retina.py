"""Lesions of the retina in fundus photographs: a ``MultiPassNet`` with weights that ship.

Trained on the training split of IDRiD (Porwal et al., Data 3(3):25, 2018, CC BY 4.0);
``retina-lesions.md`` beside the weights is their card. For research: not a medical device. Knows no
pass and no recipe.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from saccade.pipeline.models.multipass import MultiPassNet

CLASSES = ("lesion", "microaneurysm", "haemorrhage", "hard_exudate", "soft_exudate")
"""Names of the scores; each has a sigmoid of its own. A lesion is any of the four kinds."""
MEAN, STD = (0.45, 0.22, 0.08), (0.2, 0.1, 0.06)
"""Red, green and blue of retinas; subtracted and divided by."""
WEIGHTS = Path(__file__).with_name("retina-lesions.safetensors")
"""The file of weights."""
WIDTH, BLOCKS = 16, 2
"""Of the network that the weights belong to."""


def retina_lesions(
    depth: int = BLOCKS, *, guidance: bool = False, saliency: bool = False
) -> MultiPassNet:
    """The network with its weights, for passes at 2 to 8 pixels of a 12-megapixel photograph.

    Args:
        depth: transformer blocks to go through.
        guidance: whether it is guided by the scores of the pass before it, of the same network.
        saliency: whether it gives the gain that it expects of a closer look as its saliency.
    """
    net = MultiPassNet(
        CLASSES,
        width=WIDTH,
        blocks=BLOCKS,
        depth=depth,
        guidance=len(CLASSES),
        saliency=saliency,
        mean=MEAN,
        std=STD,
    )
    net.load_state_dict(load_file(WEIGHTS))
    net.saccade["guidance"] = guidance
    return net
