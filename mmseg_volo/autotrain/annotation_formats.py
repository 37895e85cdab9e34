"""Recognise annotations that are not masks by their content, so that an error can say how to convert them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmseg_volo.io.text_files import read_lines, read_rows, read_text

KINDS = {  # -> description, how to convert it
    'labelme': (
        'LabelMe polygons',
        "draw them into masks with labelme's examples/semantic_segmentation/labelme2voc.py",
    ),
    'coco': ('COCO polygons or run lengths', 'draw them into masks with pycocotools (COCO.annToMask)'),
    'yolo': (
        'YOLO polygons',
        'draw each line (class x y x y ..., as fractions of the sides) into a mask with cv2.fillPoly',
    ),
    'yolo_boxes': ('YOLO boxes', 'boxes do not say which pixels belong to a class: annotate polygons or masks'),
    'via': ('polygons of VGG Image Annotator', 'draw its regions into masks, e.g. with skimage.draw.polygon'),
    'cvat': ('CVAT polygons', 'export the task again as "Segmentation mask 1.1"'),
    'voc_boxes': ('boxes of Pascal VOC', 'boxes do not say which pixels belong to a class: annotate polygons or masks'),
    'label_studio': ('Label Studio annotations', 'export them with "Brush labels to PNG" (label-studio-converter)'),
    'cityscapes': ('polygons in the format of Cityscapes', "draw them with cityscapesScripts' json2labelImg"),
    'supervisely': ('Supervisely annotations', 'export them as masks ("Export as masks")'),
    'geojson': ('GeoJSON shapes', 'burn them into masks with gdal_rasterize or rasterio.features.rasterize'),
    'shapefile': ('shapes of a shapefile', 'burn them into masks with gdal_rasterize or rasterio.features.rasterize'),
    'run_lengths': ('run lengths in a table', 'decode each row into a mask (rle_decode of the contest)'),
}
SUFFIXES = ('.json', '.xml', '.txt', '.csv', '.geojson', '.shp')
CHECKED = 5  # files of each suffix
MOST = 256 << 20  # bytes


def annotation_of(files: Sequence[Path]) -> str | None:
    """Describe the annotations among files without masks, and how to convert them; None if no format is recognised."""
    for suffix in SUFFIXES:
        some = [path for path in files if path.suffix.lower() == suffix]
        for path in sorted(some, key=lambda path: path.name.lower().startswith('readme'))[:CHECKED]:
            if kind := _kind(path):
                what, remedy = KINDS[kind]
                return f'{what} ({path}): {remedy}'
    return None


def _kind(path: Path) -> str | None:
    try:
        if path.stat().st_size > MOST:
            return None
        match path.suffix.lower():
            case '.json' | '.geojson':
                return _of_json(json.loads(read_text(path)))
            case '.xml':
                return _of_xml(path)
            case '.txt':
                return _of_lines(read_lines(path))
            case '.csv':
                return _of_heads([head.lower() for head in next(iter(read_rows(path)), [])])
            case _:
                return 'shapefile'
    except (OSError, ValueError, RecursionError, ElementTree.ParseError):
        return None


def _of_json(content: Any) -> str | None:
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        tagged = {'polygonlabels', 'brushlabels', 'rectanglelabels', 'annotations', 'completions'}
        return 'label_studio' if {'data', 'image', 'id'} & first.keys() and tagged & first.keys() else None
    if not isinstance(content, dict):
        return None
    keys = content.keys()
    if 'shapes' in keys and {'imagePath', 'imageData'} & keys:
        return 'labelme'
    if {'images', 'annotations'} <= keys:
        return 'coco'
    if content.get('type') == 'FeatureCollection':
        return 'geojson'
    if {'imgHeight', 'objects'} <= keys:
        return 'cityscapes'
    if {'size', 'objects'} <= keys:
        return 'supervisely'
    images = content.get('_via_img_metadata', content)
    regions = [v for v in images.values() if isinstance(v, dict)] if isinstance(images, dict) else []
    return 'via' if any({'filename', 'regions'} <= v.keys() for v in regions) else None


def _of_xml(path: Path) -> str | None:
    text = read_text(path)
    if '<!DOCTYPE' in text or '<!ENTITY' in text:
        return None
    root = ElementTree.fromstring(text)
    if root.tag == 'annotations' and root.find('image') is not None:
        return 'cvat'
    return 'voc_boxes' if root.tag == 'annotation' and root.find('object') is not None else None


def _of_lines(lines: Sequence[str]) -> str | None:
    rows = [line.split() for line in lines[:100]]
    number = re.compile(r'-?\d*\.?\d+(?:e-?\d+)?')
    if not rows or not all(len(row) >= 5 and row[0].isdecimal() and all(map(number.fullmatch, row)) for row in rows):
        return None
    if any(abs(float(value)) > 1.5 for row in rows for value in row[1:]):
        return None
    return 'yolo' if any(len(row) > 5 for row in rows) else 'yolo_boxes'


def _of_heads(heads: Sequence[str]) -> str | None:
    if {'encodedpixels', 'rle', 'rle_mask', 'segmentation_rle'} & {*heads}:
        return 'run_lengths'
    return 'via' if {'region_shape_attributes', 'filename'} <= {*heads} else None
