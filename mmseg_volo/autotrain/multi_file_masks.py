"""Recognise masks of one image in several files, by class, object or label, which are not merged."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Hashable, Sequence
from pathlib import Path

TAG = re.compile(r'task-\d+-annotation-\d+-by-.+?-tag-(.+)-\d+')  # Label Studio's
SHOWN = 4
MERGE = 'merge the files of an image into one mask, with a value for each class'
Folder = tuple[str, ...]


def several_per_image(images: Sequence[tuple[Folder, Path]], masks: Sequence[tuple[Folder, Path]]) -> str | None:
    """Return an error message if most images have several masks, else None.

    Args:
        images: with the names of their folders beyond role and split.
        masks: in the same form.
    """
    tags = [match[1] for _, path in masks if (match := TAG.fullmatch(path.stem))]
    if len(tags) > len(masks) / 2:
        return (
            f'{masks[0][1]} and others are an export of Label Studio, a black and white file for each label of an '
            f'image ({_some(tags)}), named after tasks and not images: {MERGE}, named as the image is'
        )
    by_image: dict[tuple[Folder, str], list[tuple[str, Path]]] = {(folder, path.stem): [] for folder, path in images}
    for folder, path in masks:
        if (owner := _owner(folder, path.stem, by_image)) is not None:
            by_image[owner].append((path.stem[len(owner[1]) + 1 :], path))
    if several := _most([*by_image.values()], len(images)):
        ends = [end for end, _ in several[0]]
        what = 'object or class' if all(end.isdecimal() for end in ends) else 'class'
        return (
            f'{_names(several[0])} are masks of one image, a file for each {what} ({_some(ends)}): {_way(several[0])}'
        )
    keys: tuple[Callable[[Folder, Path], Hashable], ...] = (lambda _, path: path.stem, lambda folder, _: folder or None)
    for key in keys:
        groups: dict[Hashable, list[tuple[str, Path]]] = {key(*image): [] for image in images}
        for folder, path in masks:
            if (k := key(folder, path)) is not None and k in groups:
                groups[k].append(('', path))
        if len(groups) == len(images) and (several := _most([*groups.values()], len(images))):
            return f'{_names(several[0])} are masks of one image, a file for each class or object: {_way(several[0])}'
    return None


def _owner(folder: Folder, stem: str, images: Container[tuple[Folder, str]]) -> tuple[Folder, str] | None:
    """Return the image whose name starts that of a mask, up to a separator."""
    cuts = [match.start() for match in re.finditer(r'[_.\- ]', stem)]
    return next((key for cut in reversed(cuts) if (key := (folder, stem[:cut])) in images), None)


def _most(groups: list[list[tuple[str, Path]]], images: int) -> list[list[tuple[str, Path]]]:
    """Return the groups of several masks, if half of all images have one."""
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
