"""How names of images end, in small letters: for readers, and for those who look for images."""

SLIDES = frozenset(
    {".svs", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".svslide", ".czi", ".dcm"}
)
"""Whole-slide formats."""
RASTERS = frozenset({".tif", ".tiff", ".btf", ".tf8", ".png", ".jpg", ".jpeg", ".jp2", ".j2k"})
"""Images of one file each, photographs among them."""
ZARR, MIRAX = ".zarr", ".mrxs"
MOSAICS, VRT = (".mosaic.yaml", ".mosaic.yml", ".mosaic.json"), ".vrt"
"""Names of files that name others, which often lie beside them: nobody looks for these."""
