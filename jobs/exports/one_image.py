"""One image of a run on its way into files: which parts each format is made of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from saccade.jobs.exports import tables
from saccade.jobs.exports.cutting import cut_of, stated_area
from saccade.jobs.exports.options import ExportOptions, Format
from saccade.jobs.exports.placing import placed
from saccade.pipeline.errors import StoreError
from saccade.pipeline.exports.frame import ImagePixels
from saccade.pipeline.exports.frame_ground import Ground
from saccade.pipeline.exports.geojson import FeatureStyle, feature_collection
from saccade.pipeline.exports.geojson_ground import ground_collection
from saccade.pipeline.exports.geoparquet import write_geoparquet
from saccade.pipeline.exports.labelled_regions import Shapes
from saccade.pipeline.exports.labelling import Labelling, chosen_classes
from saccade.pipeline.exports.ome_xml import ome_xml
from saccade.pipeline.exports.ome_zarr_v2 import write_ome_zarr
from saccade.pipeline.exports.qgis_style import beside, raster_style, regions_style
from saccade.pipeline.exports.rasters import (
    NO_ANSWER,
    NODATA,
    answers_raster,
    labels_raster,
    probabilities_raster,
    scores_raster,
)
from saccade.pipeline.exports.stac import Kind, Origin, stac_item
from saccade.pipeline.exports.tiles_table import columns_of, feature_count, tile_rows
from saccade.pipeline.georeference import Georeference
from saccade.pipeline.image_plan import LABEL_NODATA, LABEL_UNKNOWN, ImagePlan
from saccade.pipeline.result import open_result
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_metadata import Colour, label_legend
from saccade.pipeline.store_object_shelf import Where


class ImageExport:
    """One image on its way into files."""

    def __init__(self, path: Where, name: str, options: ExportOptions, folder: Path) -> None:
        self._name, self._options, self._folder = name, options, folder
        self._where = path
        self._result = result = open_result(path)
        self._store = ImageStore.open(path)
        wanted = options.classes or (result.classes if options.to == "cog" else ())
        classes = chosen_classes(_known(result.plan, options.to), wanted)
        area = stated_area(result, options)
        cut = None if area is None else cut_of(result, area)
        self.outside = area is not None and cut is None
        """Whether the area to cut along shares no ground with the image."""
        self._labelling = Labelling(result, classes, options.threshold, cut)

    def files(self) -> Iterator[Path]:
        """Write them; gives each when it is in its place."""
        write = {
            "geojson": self._geojson,
            "geoparquet": self._geoparquet,
            "cog": self._cog,
            "stac": self._stac,
            "ome-tiff": self._ome_tiff,
            "ome-zarr-0.4": self._ome_zarr,
            "csv": self._csv,
            "parquet": self._parquet,
            "png": self._png,
        }[self._options.to]
        yield from write()

    def _facts(self) -> dict[str, Any]:
        """What a file says of itself, plain JSON."""
        plan = self._result.plan
        return {
            "image": plan.name,
            "state": "complete" if self._result.complete else "unfinished",
            "version": version("saccade"),
            "downsample": plan.last.score_downsample,
            "classes": list(self._labelling.classes),
            "threshold": self._options.threshold,
        } | ({} if self._labelling.cut is None else {"area": self._labelling.cut.digest})

    def _texts(self) -> dict[str, str]:
        """The same as words."""
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in self._facts().items()
        }

    # ------------------------------------------------------------------------------------ formats

    def _geojson(self) -> Iterator[Path]:
        path = self._folder / f"{self._name}.geojson"
        if self._on_earth is not None:
            yield self._regions_style(path)
        with (
            placed(path) as place,
            place.partial.open("w", encoding="utf-8") as file,
        ):
            file.writelines(self._features())
        yield place.path

    def _features(self) -> Iterator[str]:
        """On Earth where the image lies there, unless regions are asked for as QuPath's objects."""
        options, ground, shapes = self._options, self._on_earth, self._shapes
        if ground is not None:
            return ground_collection(self._labelling, ground, self._facts(), shapes)
        style = FeatureStyle(options.object_type or "annotation", shapes)
        frame = ImagePixels.of(self._result.plan)
        return feature_collection(self._labelling, frame, self._facts(), style)

    @property
    def _on_earth(self) -> Ground | None:
        """Where regions lie; None where they are objects for QuPath, or nobody says."""
        return None if self._options.object_type else Ground.of(self._result.plan)

    def _regions_style(self, path: Path) -> Path:
        return self._style(path, regions_style(self._labelling.colours))

    def _style(self, path: Path, style: bytes) -> Path:
        """How QGIS is to show a file, beside it."""
        with placed(beside(path)) as place:
            place.partial.write_bytes(style)
        return place.path

    @property
    def _shapes(self) -> Shapes:
        return Shapes(self._options.least_px or 1, self._options.simplify_px)

    def _geoparquet(self) -> Iterator[Path]:
        ground, shapes = self._ground(), self._shapes
        path = self._folder / f"{self._name}.regions.parquet"
        yield self._regions_style(path)
        with placed(path) as place:
            write_geoparquet(place.partial, self._labelling, ground, self._texts(), shapes)
        yield place.path

    def _stac(self) -> Iterator[Path]:
        options, plan, ground = self._options, self._result.plan, self._ground()
        legend = label_legend(self._result.classes)
        del legend[LABEL_NODATA]  # a COG has one value for all that has no answer
        passes = ", ".join(f"{one.name} at 1/{one.score_downsample:g}" for one in plan.passes)
        origin = Origin(options.taken, version("saccade"), f"passes, coarse to fine: {passes}")
        window = self._labelling.window
        item = stac_item(plan, ground, legend, self._assets(), origin, window)
        with placed(self._folder / f"{self._name}.stac.json") as place:
            place.partial.write_text(json.dumps(item, indent=1, ensure_ascii=False) + "\n", "utf-8")
        yield place.path

    def _assets(self) -> dict[Kind, str]:
        """What of this image lies in the folder, and the result itself, seen from there."""
        names: dict[Kind, str] = {
            "labels": f"{self._name}.labels.tif",
            "scores": f"{self._name}.scores.tif",
            "geojson": f"{self._name}.geojson",
            "geoparquet": f"{self._name}.regions.parquet",
            "zarr-0.4": f"{self._name}.ome.zarr",
        }
        there = {kind: f"./{name}" for kind, name in names.items() if self._has(name)}
        remote = isinstance(self._where, str)
        result = self._where if remote else os.path.relpath(self._where, self._folder)
        return {**there, "result": str(result)}

    def _has(self, name: str) -> bool:
        path = self._folder / name
        return path.exists() and path.resolve() != Path(str(self._where)).resolve()

    def _ground(self) -> Ground:
        """Where the result's pixels lie, and in which CRS.

        Raises:
            StoreError: nobody says.
        """
        self._place()
        ground = Ground.of(self._result.plan)
        if ground is None:
            raise StoreError(
                f"{self._options.to}: coordinates of a known CRS expected; "
                f"{self._result.plan.uri} names none; export cog, which needs none"
            )
        return ground

    def _ome_tiff(self) -> Iterator[Path]:
        from saccade.pipeline.exports.ome_tiff import write_ome_tiff

        content = self._options.content or "labels"
        make = {"labels": labels_raster, "scores": scores_raster}[content]
        raster, size = make(self._labelling), self._result.pixel_size
        facts = self._texts() | (self._label_names() if content == "labels" else {})
        channels = list(zip(raster.channels, raster.colours, strict=True))
        described = ome_xml(self._name, raster.shape, raster.dtype, channels, size, facts)
        with placed(self._folder / f"{self._name}.{content}.ome.tif") as place:
            write_ome_tiff(place.partial, raster, described, size)
        yield place.path

    def _cog(self) -> Iterator[Path]:
        from saccade.pipeline.exports.cog import CogFacts, write_cog
        from saccade.pipeline.exports.gdal_xml import auxiliary, gdal_metadata

        content, place = self._options.content or "labels", self._place()
        labels = content == "labels"
        raster = (answers_raster if labels else probabilities_raster)(self._labelling)
        legend = {k: v for k, v in self._legend().items() if labels and k not in NO_ANSWER}
        told = gdal_metadata(
            self._texts(), "MODE" if labels else "AVERAGE", raster.channels, legend
        )
        palette = {value: colour for value, (_, colour, _) in legend.items()}
        facts = CogFacts(place, str(NODATA) if labels else "nan", told, palette)
        path = self._folder / f"{self._name}.{content}.tif"
        if labels:
            with placed(path.with_name(f"{path.name}.aux.xml")) as told_beside:
                told_beside.partial.write_bytes(auxiliary(legend))
            yield told_beside.path
            yield self._style(path, raster_style(legend))
        with placed(path) as main:
            write_cog(main.partial, raster, facts)
        yield main.path

    def _place(self) -> Georeference:
        """Where the pixels that are exported lie.

        Raises:
            StoreError: nobody says.
        """
        plan = self._result.plan
        if plan.georeference is None:
            raise StoreError(
                f"{self._options.to}: an image that lies somewhere on Earth expected; {plan.uri} "
                "states no georeference; export ome-tiff or geojson, which need none"
            )
        window = self._labelling.window
        return plan.georeference.at(plan.last.score_downsample).moved(window.y0, window.x0)

    def _legend(self) -> dict[int, tuple[str, Colour, int]]:
        """What the values of labels mean: name, colour, opacity."""
        known = {*self._labelling.values.values(), LABEL_NODATA, LABEL_UNKNOWN}
        if len(self._result.classes) == 1:
            known.add(0)
        legend = label_legend(self._result.classes).items()
        return {value: said for value, said in legend if value in known}

    def _label_names(self) -> dict[str, str]:
        return {f"label {value}": name for value, (name, _, _) in self._legend().items()}

    def _ome_zarr(self) -> Iterator[Path]:
        plan = self._result.plan
        whole = Labelling(self._result, plan.classes)
        facts = self._facts() | {"classes": list(plan.classes)}
        with placed(self._folder / f"{self._name}.ome.zarr") as place:
            write_ome_zarr(place.partial, plan, scores_raster(whole), labels_raster(whole), facts)
        yield place.path

    def _csv(self) -> Iterator[Path]:
        count = feature_count(self._store, self._result.plan)
        columns = columns_of(self._result.plan, self._options.classes, count)
        with placed(self._folder / f"{self._name}.tiles.csv") as place:
            tables.write_csv(place.partial, columns, count, tile_rows(self._result, self._store))
        yield place.path

    def _parquet(self) -> Iterator[Path]:
        count = feature_count(self._store, self._result.plan)
        columns = columns_of(self._result.plan, self._options.classes, count)
        with placed(self._folder / f"{self._name}.tiles.parquet") as place:
            rows = tile_rows(self._result, self._store)
            tables.write_parquet(place.partial, columns, rows, self._texts())
        yield place.path

    def _png(self) -> Iterator[Path]:
        from saccade.jobs.exports.overlay import draw_overlays, write_page

        longest = self._options.longest_px or 2048
        classes = self._labelling.classes
        pages = draw_overlays(self._result, self._store, classes, longest)
        for name, page in pages.items():
            with placed(self._folder / f"{self._name}.{_safe(name)}.png") as place:
                write_page(place.partial, page, json.dumps(self._facts()))
            yield place.path


def _known(plan: ImagePlan, to: Format) -> tuple[str, ...]:
    """The classes that can be named: of the result; in a table of tiles, of any pass."""
    if to not in ("csv", "parquet"):
        return plan.classes
    return tuple(dict.fromkeys(name for one in plan.passes for name in one.classes))


def _safe(name: str) -> str:
    """A class's name as part of a file's."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
