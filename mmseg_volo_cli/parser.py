"""Define the arguments of `mmseg-volo train|test|predict|report|check|weights|app|doctor`."""

from __future__ import annotations

import argparse

FAMILIES = ('VOLO', 'CAFormer', 'ConvFormer', 'IdentityFormer', 'RandFormer', 'PoolFormerV2', 'T2TViT', 'CoAtNet')
CONFIG = 'path of a config, or the name of a shipped one'
SOURCE = 'path of a .pth, .pth.tar or .safetensors file, https://..., or timm://NAME'


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; options that MMSegmentation has too keep its names."""
    root = argparse.ArgumentParser('mmseg-volo', description='Train, test and use semantic segmentation models.')
    commands = root.add_subparsers(
        dest='command', required=True, metavar='train|test|predict|report|check|weights|app|doctor'
    )
    _add_train(commands.add_parser('train', help='train a model'))
    _add_test(commands.add_parser('test', help='evaluate a checkpoint'))
    _add_predict(commands.add_parser('predict', help='segment images, videos and GeoTIFFs'))
    report_args = commands.add_parser('report', help='summarise the results of a work dir on one page')
    report_args.add_argument('work_dir', metavar='WORK_DIR', help='work dir of trainings and tests')
    report_args.add_argument('--out', help='path of the page (default: WORK_DIR/report.html)')
    check_args = commands.add_parser('check', help='check every image and label of a config')
    check_args.add_argument('config', help=CONFIG)
    check_args.add_argument('--workers', type=int, help='files read at a time (default: number of cores, at most 16)')
    check_args.add_argument('--out', help='file for the full report (JSON)')
    _add_options(check_args)
    _add_weights(commands.add_parser('weights', help='list, fetch, convert and check weights'))
    _add_app(commands.add_parser('app', help='try a checkpoint on a web page, on this machine only'))
    # no `help`, so that the list of commands leaves it out
    _add_app(commands.add_parser('demo', description='Former name of `mmseg-volo app`.'))
    commands.add_parser('doctor', help='check versions, devices, caches and a training step, and show how to fix them')
    return root


def _add_test(args: argparse.ArgumentParser) -> None:
    args.add_argument('config', help=CONFIG)
    args.add_argument('checkpoint', help='path or https:// address of a checkpoint')
    args.add_argument('--show-dir', help='folder for pictures: image, ground truth and prediction side by side')
    args.add_argument('--out', help='folder for the predicted masks')
    args.add_argument(
        '--format-only',
        action='store_true',
        help="only write masks to --out, in the format of the data set's test server; needs no labels",
    )
    args.add_argument('--tta', action='store_true', help='average the predictions over scales and flips')
    _add_common(args)


def _add_predict(args: argparse.ArgumentParser) -> None:
    args.add_argument(
        'paths',
        nargs='+',
        metavar='MODEL',
        help='CONFIG CHECKPOINT INPUT..., or CHECKPOINT INPUT...; inputs are images, videos, GeoTIFFs, folders of '
        'them, or patterns such as "photos/*.jpg"',
    )
    args.add_argument('--out', required=True, help='folder for the results, with a subfolder for each kind of output')
    args.add_argument(
        '--outputs',
        type=lambda text: text.split(','),
        default=['masks', 'overlays'],
        metavar='KIND,...',
        help='any of masks (class indices), colours, overlays (with a legend), confidence, probabilities, polygons '
        '(GeoJSON), areas (CSV: pixels, share, square metres) (default: masks,overlays)',
    )
    args.add_argument('--overwrite', action='store_true', help='replace existing results, which are otherwise kept')
    args.add_argument('--opacity', type=float, help='opacity of the overlay, 0 to 1 (default: 0.5)')
    _add_speed(args)
    args.add_argument(
        '--window-size',
        type=int,
        metavar='PIXELS',
        help='predict in sliding windows of this side, at the full resolution of the image, without resizing it',
    )
    args.add_argument('--windows', type=int, dest='window_size', help=argparse.SUPPRESS)  # former name
    args.add_argument(
        '--video-masks-as-png',
        action='store_true',
        help='write masks and confidence of videos as one PNG file per frame instead of a lossless video',
    )
    args.add_argument('--frames', action='store_true', dest='video_masks_as_png', help=argparse.SUPPRESS)  # former name
    args.add_argument(
        '--bands', type=_numbers, metavar='R,G,B', help='bands to read as red, green and blue, from 1, e.g. 4,3,2'
    )
    args.add_argument(
        '--value-range', type=float, nargs=2, metavar=('LOW', 'HIGH'), help='pixel values to map to black and to white'
    )


def _add_speed(args: argparse.ArgumentParser) -> None:
    args.add_argument('--device', help="e.g. 'cpu', 'cuda:1' (default: the GPU, if there is one)")
    args.add_argument(
        '--optimize',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='on CPUs: channels-last tensors and faster convolutions',
    )
    args.add_argument(
        '--bf16',
        action='store_true',
        help='compute in bfloat16: faster on hardware that supports it, but some pixels change class',
    )


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(',')]
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected numbers, e.g. 4,3,2, got {text!r}') from None


def _add_train(args: argparse.ArgumentParser) -> None:
    args.add_argument('config', nargs='?', help=f'{CONFIG}; or give --data and --model')
    args.add_argument('--resume', action='store_true', help='resume from the latest checkpoint in the work dir')
    args.add_argument('--overwrite', action='store_true', help='start again, and remove the training in the work dir')
    args.add_argument(
        '--amp',
        action=argparse.BooleanOptionalAction,
        help='mixed precision: bfloat16 where the device supports it; on by default on GPUs that do',
    )
    args.add_argument(
        '--accumulate',
        type=int,
        default=1,
        metavar='N',
        help="accumulate gradients over N iterations; the config's max_iters and intervals then count updates",
    )
    args.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    args.add_argument('--fsdp', action='store_true', help='shard the model over all GPUs, if it does not fit one')
    args.add_argument('--no-check', action='store_true', help='skip the check of all images and labels before training')
    _add_folder(args.add_argument_group('your own images', 'No config is needed: --data FOLDER --model caformer_s18'))
    _add_common(args)


def _add_folder(args: argparse._ArgumentGroup) -> None:
    args.add_argument('--data', help='folder of images and masks in a common layout, or a CSV file that lists them')
    args.add_argument('--model', help='a backbone, e.g. caformer_s18 or volo_d1, or a config to take the training from')
    args.add_argument(
        '--classes', nargs='+', default=[], metavar='NAME', help='NAME, NAME=VALUE, NAME=R,G,B, or a file of them'
    )
    args.add_argument(
        '--ignore', nargs='+', default=[], metavar='VALUE', help='mask values, colours R,G,B or class names to ignore'
    )
    args.add_argument('--binary', action='store_true', help='masks are black and white with blurred edges')
    args.add_argument('--size', nargs='+', type=int, metavar='PIXELS', help='training crop: SIDE, or HEIGHT WIDTH')
    args.add_argument('--epochs', type=float, help='passes over the training images')
    args.add_argument('--batch', type=int, help='images per batch (default: on a GPU as many as fit, at most 16)')
    args.add_argument('--weights', help="initial weights of the backbone, or 'none' (default: ImageNet weights)")
    args.add_argument('--seed', type=int, help='seed of the split and of the training (default: 0)')
    args.add_argument('--val-share', type=float, help='share of the images for validation, if the data have no split')
    args.add_argument('--images', help='folder of the images below --data, if its name does not show it')
    args.add_argument('--masks', help='folder of the masks below --data, if its name does not show it')
    args.add_argument('--skip-unpaired', action='store_true', help='skip images without mask and masks without image')
    args.add_argument('--allow-outside', action='store_true', help='let lists and tables name files outside --data')
    args.add_argument('--plan-only', action='store_true', help='print the plan, write the config, and stop')


def _add_common(args: argparse.ArgumentParser) -> None:
    args.add_argument(
        '--log',
        action='append',
        choices=['tensorboard', 'wandb', 'mlflow'],
        help='log to this tracker too; repeat the option for several',
    )
    args.add_argument('--work-dir', help='folder for logs and results (default: ./work_dirs/CONFIG)')
    args.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    args.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    _add_options(args)


def _add_options(args: argparse.ArgumentParser) -> None:
    args.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='override values of the config'
    )


def _add_weights(root: argparse.ArgumentParser) -> None:
    commands = root.add_subparsers(dest='weights_command', required=True, metavar='list|fetch|convert|check')

    args = commands.add_parser('list', help='list published weights, and which of them are in the cache')
    args.add_argument('pattern', nargs='?', default='', help='part of a name, or a pattern, e.g. "caformer*384"')

    args = commands.add_parser('fetch', help='download into the cache and print the paths')
    args.add_argument('names', nargs='+', metavar='NAME|URL|CONFIG', help='a name that `list` prints, or a config')

    args = commands.add_parser('convert', help='convert any readable weights to .safetensors')
    args.add_argument('source', metavar='SRC', help=SOURCE)
    args.add_argument('target', metavar='DST', help='path of the .safetensors file to write')
    args.add_argument('--config', help="convert to the keys of this config's backbone, without the classifier")
    args.add_argument('--force', action='store_true', help='replace DST if it exists')
    args.add_argument(
        '--trust-pickle',
        action='store_true',
        help='read SRC even if it holds more than data: THIS RUNS ANY CODE IN IT, so use it only for a file that you '
        'would run as a program; DST holds plain data, which all other commands accept',
    )
    _add_backbone(args)

    args = commands.add_parser('check', help='check whether weights fit a model, and list the keys that do not')
    args.add_argument('source', metavar='FILE', help=SOURCE)
    args.add_argument('config', nargs='?', help='model or backbone to fit; our own checkpoints describe theirs')
    _add_backbone(args)


def _add_app(args: argparse.ArgumentParser) -> None:
    args.set_defaults(command='app')
    args.add_argument('paths', nargs='+', metavar='MODEL', help='CHECKPOINT, or CONFIG CHECKPOINT')
    _add_speed(args)
    args.add_argument('--port', type=int, help='port to listen on (default: the first free one from 7860)')
    args.add_argument('--max-mb', type=int, default=20, metavar='N', help='largest upload in MB (default: 20)')
    args.add_argument(
        '--max-megapixels', type=int, default=40, metavar='N', help='largest image in megapixels (default: 40)'
    )


def _add_backbone(args: argparse.ArgumentParser) -> None:
    args.add_argument('--type', choices=FAMILIES, help='family of a backbone, in place of a config')
    args.add_argument('--arch', help="variant of --type, e.g. 'd1'")
    args.add_argument('--img-size', type=int, default=224, help='side of the training images (default: 224)')
    args.add_argument('--prefix', default='', help="use only keys with this prefix, and strip it, e.g. 'backbone.'")
