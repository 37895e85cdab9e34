"""Draw matplotlib figures as inline SVG, in the page's colours for light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from xml.etree import ElementTree

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from mmseg_volo.report.sessions import Curve

# placeholder colours -> variables of the page's style sheet
VARIABLES = {'#010101': 'fg', '#010102': 'muted', '#010103': 'grid', '#010104': 'page'}
VARIABLES |= {f'#0102{i:02x}': f'line{i}' for i in range(6)}
FG, MUTED, GRID, PAGE, *LINES = VARIABLES
RIGHT, WRONG = (37, 99, 235), (225, 72, 40)  # of the cells of a confusion matrix, RGB
LABELLED, NUMBERED = 40, 20  # up to so many classes a matrix has names and numbers
SVG = 'http://www.w3.org/2000/svg'
LINK = 'http://www.w3.org/1999/xlink'


@contextmanager
def _style() -> Iterator[None]:
    style = rc_context(
        {
            'svg.fonttype': 'none',
            'text.parse_math': False,  # names of classes and figures are text
            'font.size': 9,
            'text.color': FG,
            'axes.labelcolor': MUTED,
            'axes.edgecolor': GRID,
            'axes.titlesize': 10,
            'axes.titleweight': 'bold',
            'axes.titlelocation': 'left',
            'axes.spines.top': False,
            'axes.spines.right': False,
            'axes.grid': True,
            'axes.axisbelow': True,
            'grid.color': GRID,
            'grid.linewidth': 0.6,
            'xtick.color': MUTED,
            'ytick.color': MUTED,
            'lines.linewidth': 1.6,
            'legend.frameon': False,
            'legend.fontsize': 8,
        }
    )
    with style:
        yield


def curves(name: str, title: str, lines: Mapping[str, Curve], log: bool = False, peak: str | None = None) -> str:
    """Draw lines over the iterations of a training.

    Args:
        name: id of the figure, unique on its page.
        title: title above it.
        lines: legend -> curve; at most six are drawn. NaN and infinity are gaps.
        log: whether the y axis is logarithmic.
        peak: legend of the line whose highest value is marked and named.

    Returns:
        An `<svg>` element.
    """
    with _style():
        figure = Figure((4.6, 2.9), layout='constrained')
        axes = figure.add_subplot(title=title)
        for colour, (line, curve) in zip(LINES, lines.items(), strict=False):
            legend = shorten(line)
            x = [iteration for iteration, _ in curve]
            y = [value if math.isfinite(value) else math.nan for _, value in curve]
            few = len(curve) <= 30
            if line == peak and not all(map(math.isnan, y)):
                at = int(np.nanargmax(y))
                legend = f'{legend}, best {y[at]:.1f} at {x[at]:,}'
                axes.plot(x[at], y[at], 'o', markersize=6, markerfacecolor=PAGE, markeredgecolor=colour, zorder=3)
            axes.plot(x, y, color=colour, label=legend, marker='o' if few else None, markersize=3)
        if log and all(value > 0 for curve in lines.values() for _, value in curve if math.isfinite(value)):
            axes.set_yscale('log')
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter('{x:g}')  # matplotlib's default writes powers as formulas
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.yaxis.set_major_formatter('{x:g}')
        axes.set_xlabel('iteration')
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=''))
        if len(lines) > 1 or peak:
            axes.legend()
        return _svg(figure, name, title)


def matrix(name: str, confusion: np.ndarray, classes: Sequence[str]) -> str:
    """Draw a confusion matrix, each row in shares of its true class.

    Args:
        name: id of the figure, unique on its page.
        confusion: counts (classes, classes); rows are the truth.
        classes: class names, drawn for up to 40 classes; numbers for up to 20.

    Returns:
        An `<svg>` element.
    """
    count = len(classes)
    total = confusion.sum(1, keepdims=True)
    share = np.divide(confusion, total, out=np.zeros(confusion.shape), where=total > 0)
    pixels = np.empty((count, count, 4))
    pixels[..., :3] = np.where(np.eye(count, dtype=bool)[..., None], RIGHT, WRONG)
    pixels[..., :3] /= 255
    pixels[..., 3] = np.sqrt(share)  # makes small shares visible
    names = [shorten(label) for label in classes]
    with _style():
        cell = 0.42 if count <= NUMBERED else 0.2 if count <= LABELLED else 6 / count
        side = cell * count + 0.8 + (count <= LABELLED) * 0.08 * max(map(len, names))
        figure = Figure((side, side), layout='constrained')
        axes = figure.add_subplot(xlabel='prediction', ylabel='truth')
        axes.grid(False)
        axes.imshow(pixels, interpolation='none')
        axes.spines[:].set_visible(True)
        axes.tick_params(length=0)
        if count <= LABELLED:
            axes.set_xticks(range(count), names, rotation=45, ha='right', rotation_mode='anchor')
            axes.set_yticks(range(count), names)
        if count <= NUMBERED:
            for row, column in np.argwhere(share >= 0.005):
                colour = 'white' if share[row, column] > 0.3 else FG
                text = f'{100 * share[row, column]:.0f}'
                axes.text(column, row, text, ha='center', va='center', fontsize=8, color=colour)
        return _svg(figure, name, 'confusion matrix')


def shorten(text: str, longest: int = 24) -> str:
    """Shorten a name to fit a figure, on one line."""
    text = ' '.join(str(text).split())
    return text if len(text) <= longest else f'{text[: longest - 1]}…'


def _svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an `<svg>` element with unique ids and the page's colours and fonts."""
    file = io.BytesIO()
    figure.savefig(file, format='svg', transparent=True, metadata=dict(Date=None, Creator=None))
    ElementTree.register_namespace('', SVG)
    ElementTree.register_namespace('xlink', LINK)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        for key, value in element.items():
            if key == 'id':
                value = f'{name}-{value}'
            elif key == f'{{{LINK}}}href' and value.startswith('#'):
                value = f'#{name}-{value[1:]}'
            elif not value.startswith('data:'):
                value = value.replace('url(#', f'url(#{name}-')
                value = re.sub(r'#01\d{4}', lambda match: f'var(--{VARIABLES[match[0]]})', value)
            element.set(key, value)
    for metadata in root.findall(f'{{{SVG}}}metadata'):
        root.remove(metadata)
    root.set('role', 'img')
    root.set('aria-label', title)
    return ElementTree.tostring(root, encoding='unicode')
