"""What QGIS makes of a raster and a file of polygons, as JSON; runs in the Python that QGIS is for.

    QT_QPA_PLATFORM=offscreen python3 qgis_probe.py RASTER VECTOR PICTURE X,Y...

Opens both as a person does who drags them into a map: no renderer, CRS or nodata value is stated.
The picture is 400 pixels wide, of the raster's extent, polygons over the raster.
"""

import json
import sys

from qgis.core import (  # type: ignore[import-not-found]
    QgsApplication,
    QgsCoordinateTransform,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsPointXY,
    QgsProject,
    QgsRaster,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize  # type: ignore[import-not-found]

WIDTH_PX = 400


def corners(box):
    return [box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()]


def of_raster(layer, points):
    provider, renderer = layer.dataProvider(), layer.renderer()
    found = [provider.identify(point, QgsRaster.IdentifyFormatValue).results() for point in points]
    classes = renderer.classes() if renderer.type() == "paletted" else []
    return {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "extent": corners(layer.extent()),
        "size": [layer.width(), layer.height()],
        "nodata": provider.sourceNoDataValue(1) if provider.sourceHasNoDataValue(1) else None,
        "renderer": renderer.type(),
        "classes": {int(one.value): [one.color.name(), one.label] for one in classes},
        "values": [one.get(1) for one in found],
    }


def of_vector(layer):
    features = list(layer.getFeatures())
    return {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "fields": [field.name() for field in layer.fields()],
        "classes": sorted({feature["class"] for feature in features}),
        "broken": sum(not feature.geometry().isGeosValid() for feature in features),
        "count": len(features),
    }


def containing(layer, raster, points):
    """The classes of the polygons at points of the raster's CRS."""
    to_layer = QgsCoordinateTransform(raster.crs(), layer.crs(), QgsProject.instance())
    features = list(layer.getFeatures())
    places = [to_layer.transform(point) for point in points]
    return [[f["class"] for f in features if f.geometry().contains(place)] for place in places]


def picture(path, raster, vector):
    """Save the map; returns the colour of pixels by (row, column)."""
    settings = QgsMapSettings()
    settings.setLayers([vector, raster] if vector else [raster])
    settings.setDestinationCrs(raster.crs())
    settings.setExtent(raster.extent())
    height = round(WIDTH_PX * raster.height() / raster.width())
    settings.setOutputSize(QSize(WIDTH_PX, height))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage()
    image.save(path)
    return image


def main():
    raster_path, vector_path, picture_path, *texts = sys.argv[1:]
    application = QgsApplication([], False)
    application.initQgis()
    points = [QgsPointXY(*map(float, text.split(","))) for text in texts]
    raster, vector = QgsRasterLayer(raster_path, "raster"), QgsVectorLayer(vector_path, "polygons")
    picture(picture_path, raster, vector)
    said = {"raster": of_raster(raster, points), "vector": of_vector(vector)}
    said["vector"]["at points"] = containing(vector, raster, points)
    print(json.dumps(said))
    del raster, vector
    application.exitQgis()


if __name__ == "__main__":
    main()
