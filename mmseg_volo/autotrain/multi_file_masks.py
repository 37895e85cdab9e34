"""Masks of one image in several files, by class, object or label: they are not merged, and a message says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

TAG = re.compile(r'task-\d+-annotation-\d+-by-.+?-tag-(.+)-\d+')  # Label Studio's
SHOWN = 4
MERGE = 'merge the files of an image into one mask, with a value for each class'


def several_per_image(images: Sequence[tuple[tuple, Path]], masks: Sequence[tuple[tuple, Path]]) -> str | None:
    """A sentence if most images have several masks.

    Args:
        images: with what their folders say, beyond role and split.
        masks: in the same way.
    """
    tags = [match[1] for _, path in masks if (match := TAG.fullmatch(path.stem))]
    if len(tags) > len(masks) / 2:
        return (
            f'{masks[0][1]} and others are an export of Label Studio, a black and white file for each label of an '
            f'image ({_some(tags)}), named after tasks and not images: {MERGE}, named as the image is'
        )
    parts: dict[tuple, list[tuple[str, Path]]] = {(place, path.stem): [] for place, path in images}
    for place, path in masks:
        if (key := _owner(place, path.stem, parts)) is not None:
            parts[key].append((path.stem[len(key[1]) + 1 :], path))
    if found := _most([*parts.values()], len(images)):
        ends = [end for end, _ in found[0]]
        what = 'object or class' if all(end.isdecimal() for end in ends) else 'class'
        return f'{_names(found[0])} are masks of one image, a file for each {what} ({_some(ends)}): {_way(found[0])}'
    for key in (lambda place, path: path.stem, lambda place, path: place or None):
        groups: dict[object, list[tuple[str, Path]]] = {key(*image): [] for image in images}
        for place, path in masks:
            if (k := key(place, path)) is not None and k in groups:
                groups[k].append(('', path))
        if len(groups) == len(images) and (found := _most([*groups.values()], len(images))):
            return f'{_names(found[0])} are masks of one image, a file for each class or object: {_way(found[0])}'
    return None


def _owner(place: tuple, stem: str, images: dict[tuple, list]) -> tuple | None:
    """The image whose name a mask's begins with, up to a mark."""
    cuts = [match.start() for match in re.finditer(r'[_.\- ]', stem)]
    return next((key for cut in reversed(cuts) if (key := (place, stem[:cut])) in images), None)


def _most(groups: list[list[tuple[str, Path]]], images: int) -> list[list[tuple[str, Path]]]:
    """The groups of several masks, if half of all images have one."""
    several = [group for group in groups if len(group) > 1]
    return several if several and len(several) >= images / 2 else []


def _some(words: Sequence[str]) -> str:
    distinct = [*dict.fromkeys(words)]
    return f'{", ".join(distinct[:SHOWN])}{", ..." * (len(distinct) > SHOWN)}'


def _way(group: Sequence[tuple[str, Path]]) -> str:
    folders = {path.parent for _, path in group}
    return MERGE + ', or say with --images FOLDER --masks FOLDER which folder counts' * (len(folders) > 1)


def _names(group: Sequence[tuple[str, Path]]) -> str:
    return f'{group[0][1]} and {group[1][1]}'
