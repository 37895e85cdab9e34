"""Build and serve the page with gradio, which is optional: `pip install 'mmseg_volo[demo]'`."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mmseg_volo.app.guard import GuardMiddleware
from mmseg_volo.app.upload_dir import own_folder
from mmseg_volo.app.view import Limits, Segmentation, areas_table, is_large, open_upload, refuse_bands, segment, view
from mmseg_volo.errors import UsageError, as_errors
from mmseg_volo.io.http import LOOPBACK
from mmseg_volo.utils.files import encode_image, write_whole

if TYPE_CHECKING:
    import gradio
    from mmseg.models import BaseSegmentor

ADDRESS = '127.0.0.1'
MASKS = 'masks'
KEEP_SECONDS = 24 * 3600  # uploads and masks are kept so long; all are removed when the server ends
UPLOADS = 20  # uploads of the largest size that fit the folder together
WAITING = 64  # events in the queue
VISITS = 8  # pages whose image is remembered, the latest ones; and uploads that wait for the network at a time
HINT = '<p>Drop an image on the field on the left, or click it: up to {} MB and {} million pixels.</p>'
STYLE = """
#overlay .image-frame, #overlay img { width: 100% }
#overlay img { max-height: 75vh; object-fit: contain }
.areas { border: 0 !important; width: 100%; max-width: 40rem; font-variant-numeric: tabular-nums }
.areas td, .areas th { text-align: right; padding: .2rem .5rem; border: 0 !important }
.areas tr { border-width: 0 0 1px !important; border-color: #8884 !important }
.areas td:first-child, .areas th:first-child { text-align: left }
.areas .chip { display: inline-block; width: .9em; height: .9em; border-radius: 3px; margin-right: .5em;
  outline: 1px solid #8888; vertical-align: -.08em }
.areas .left { opacity: .65 }
.problem { border-left: 4px solid #d33; padding: .4rem .8rem; background: #d3333318; font-weight: 600 }
"""


def require_gradio() -> None:
    """Check the version of gradio without importing it, which takes seconds.

    Raises:
        UsageError: it is not installed, or has another major version.
    """
    try:
        installed = version('gradio')
    except PackageNotFoundError:
        installed = 'none'
    if installed.split('.')[0] != '6':
        raise UsageError(f"mmseg-volo app needs gradio 6, found {installed}: pip install 'gradio>=6,<7'")


def gradio_module(folder: Path) -> Any:
    """Import gradio without telemetry and without settings from the environment; its files go to a folder."""
    for name in [
        name for name in os.environ if name.startswith('GRADIO_')
    ]:  # such as share links, other paths and addresses
        del os.environ[name]
    os.environ.update(GRADIO_ANALYTICS_ENABLED='False', GRADIO_TEMP_DIR=str(folder))
    for name in ('no_proxy', 'NO_PROXY'):  # gradio sends requests to its own server
        os.environ[name] = ','.join([*filter(None, [os.environ.get(name)]), *LOOPBACK])
    import gradio

    return gradio


class Page:
    """The page for one model.

    Args:
        model: from `mmseg_volo.load`.
        title: title of the page.
        folder: folder for the masks to download.
        limits: limits of uploads.
    """

    def __init__(self, model: BaseSegmentor, title: str, folder: Path, limits: Limits):
        self.model = model
        self.title = title
        self.folder = folder
        self.limits = limits
        self.hint = HINT.format(limits.megabytes, limits.megapixels)
        self.lanes = {large: threading.Lock() for large in (True, False)}  # small images do not wait for large ones

    def build(self, gr: Any) -> gradio.Blocks:
        """Build the page; gradio is an argument because it may not be installed."""
        with gr.Blocks(
            title=self.title, analytics_enabled=False, delete_cache=(3600, KEEP_SECONDS), fill_width=True
        ) as blocks:
            gr.HTML(f'<h1>{escape(self.title)}</h1>')
            segmentation = gr.State(None, time_to_live=KEEP_SECONDS)
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    upload = gr.File(label='Image', file_count='single', height=170, elem_id='upload')
                    classes = gr.Dropdown(
                        list(self.model.dataset_meta['classes']),
                        value=[],
                        multiselect=True,
                        label='Classes',
                        info='All, if none is selected',
                        elem_id='classes',
                    )
                    opacity = gr.Slider(0, 100, 50, step=1, label='Opacity (%)', elem_id='opacity')
                    least = gr.Slider(
                        0, 100, 0, step=1, label='Confidence (%)', info='Pixels below it are hidden', elem_id='least'
                    )
                    button = gr.DownloadButton('Download mask', interactive=False, elem_id='mask')
                with gr.Column(scale=3):
                    status = gr.HTML(self.hint, elem_id='status')
                    picture = gr.Image(
                        label='Overlay', format='jpeg', interactive=False, buttons=['fullscreen'], elem_id='overlay'
                    )
                    areas = gr.HTML(elem_id='areas')
            sliders, outputs = [classes, opacity, least], [picture, areas, button]
            quiet = dict(api_visibility='private')
            upload.change(
                lambda *values: self.on_upload(gr, *values),
                [upload, *sliders],
                [segmentation, status, *outputs],
                concurrency_limit=VISITS,
                **quiet,
            )
            gr.on(
                [control.change for control in sliders],
                lambda *values: self.redraw(gr, *values),
                [segmentation, *sliders],
                outputs,
                show_progress='hidden',
                trigger_mode='always_last',
                **quiet,
            )
        return blocks

    def on_upload(self, gr: Any, path: str | None, classes: list[str], opacity: float, least: float) -> tuple[Any, ...]:
        """Segment an upload; an error is shown on the page in place of the last image."""
        if path is None:
            return None, self.hint, *self.redraw(gr, None)
        try:
            with as_errors():
                image = open_upload(path, self.limits)
                with self.lanes[is_large(image)]:
                    start = time.monotonic()
                    segmentation = segment(self.model, path, image)
        except Exception as error:  # decoders and networks raise anything; the page continues
            message = str(error) if isinstance(error, UsageError) else f'It could not be segmented: {_reason(error)}'
            return None, f'<p class="problem" role="alert">{escape(message)}</p>', *self.redraw(gr, None)
        height, width = segmentation.mask.shape
        message = f'{segmentation.name}: {width}x{height} pixels, segmented in {time.monotonic() - start:.1f} s'
        message += f', in windows of {segmentation.windows} pixels' if segmentation.windows else ''
        print(ascii(message)[1:-1], flush=True)
        return segmentation, f'<p>{escape(message)}</p>', *self.redraw(gr, segmentation, classes, opacity, least)

    def redraw(
        self,
        gr: Any,
        segmentation: Segmentation | None,
        classes: list[str] | None = None,
        opacity: float = 50,
        least: float = 0,
    ) -> tuple[Any, ...]:
        """Return picture, table and mask of a segmentation, without running the network again."""
        if segmentation is None:
            return None, '', gr.DownloadButton(value=None, interactive=False)
        shown = view(segmentation, classes or [], opacity / 100, round(least))
        path = self.folder / uuid4().hex / f'{Path(segmentation.name).stem}_mask.png'
        path.parent.mkdir(parents=True)
        try:
            write_whole(path, encode_image('.png', shown.mask))
        except OSError as error:
            raise gr.Error(f'the mask could not be written to {self.folder}: free some space there') from error
        table = areas_table(segmentation, shown.areas)
        return shown.picture, table, gr.DownloadButton(value=str(path), interactive=True)


def _reason(error: Exception) -> str:
    """Return the first sentence of an error, without the path of the upload."""
    return (error.strerror or 'the file no longer exists') if isinstance(error, OSError) else str(error).split('. ')[0]


def serve(model: BaseSegmentor, title: str, limits: Limits, port: int | None = None) -> None:
    """Serve the page on the loopback address until Ctrl-C or SIGTERM, then remove the uploads.

    It needs a process of its own: it removes gradio's variables from the environment and handles SIGTERM.

    Args:
        model: from `mmseg_volo.load`.
        title: title of the page.
        limits: limits of uploads.
        port: port to listen on; the first free one of 7860 to 7959 if None.

    Raises:
        UsageError: gradio is not installed, the model does not take RGB images, or no port is free.
    """
    require_gradio()
    refuse_bands(model)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), own_folder() as folder:
        gr = gradio_module(folder)
        blocks = launch(gr, Page(model, title, folder / MASKS, limits).build(gr), folder, limits, port)
        print(f'{blocks.local_url} shows the page, on this machine only; Ctrl-C ends it', flush=True)
        threading.Event().wait()
    print('ended', flush=True)  # the server's thread ends with the process


def launch(gr: Any, blocks: gradio.Blocks, folder: Path, limits: Limits, port: int | None) -> gradio.Blocks:
    """Start the server in a thread. Every option is set, because gradio reads the others from the environment."""
    from starlette.middleware import Middleware

    most = limits.megabytes * 10**6 + (1 << 16)  # a form holds some text beside the file
    guard = Middleware(GuardMiddleware, folder=folder, upload_bytes=most, folder_bytes=UPLOADS * most)
    fonts = ['system-ui', 'sans-serif']
    try:
        blocks.queue(max_size=WAITING).launch(
            server_name=ADDRESS,
            server_port=port,
            share=False,
            inbrowser=False,
            inline=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            footer_links=[],
            run_history=False,
            allowed_paths=[str(folder / MASKS)],
            root_path='',
            app_kwargs=dict(middleware=[guard], docs_url=None, redoc_url=None, openapi_url=None),
            state_session_capacity=VISITS,
            max_file_size=limits.megabytes * 10**6,
            enable_monitoring=False,
            strict_cors=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            num_workers=0,
            theme=gr.themes.Default(font=fonts, font_mono=['ui-monospace', 'monospace']),  # no web fonts
            css=STYLE,
        )
    except OSError as error:
        subject = 'none of the ports 7860 to 7959 is' if port is None else f'port {port} is not'
        raise UsageError(f'{subject} free on {ADDRESS}: give another one with --port') from error
    return blocks
