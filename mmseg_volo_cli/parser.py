"""The arguments of `mmseg-volo train|test|predict|report|check|weights|demo|doctor`."""

from __future__ import annotations

import argparse

FAMILIES = ('VOLO', 'CAFormer', 'ConvFormer', 'IdentityFormer', 'RandFormer', 'PoolFormerV2', 'T2TViT', 'CoAtNet')
SOURCE = 'path of a .pth, .pth.tar or .safetensors file, https://..., or timm://NAME'


def build_parser() -> argparse.ArgumentParser:
    """The arguments that MMSegmentation's users know."""
    root = argparse.ArgumentParser('mmseg-volo', description='Train, test and use semantic segmentors.')
    commands = root.add_subparsers(
        dest='command', required=True, metavar='train|test|predict|report|check|weights|demo|doctor'
    )

    _add_train(commands.add_parser('train', help='train a segmentor'))
    test_args = commands.add_parser('test', help='evaluate a checkpoint')
    test_args.add_argument('config', help='path of a config, or the name of a shipped one')
    test_args.add_argument('checkpoint', help='path or https:// address of a checkpoint')
    test_args.add_argument('--show-dir', help='folder for pictures: image, truth and prediction side by side')
    test_args.add_argument('--out', help='folder for the predicted masks')
    test_args.add_argument(
        '--format-only',
        action='store_true',
        help="write masks as the data set's test server wants them to --out, and score nothing; needs no labels",
    )
    test_args.add_argument('--tta', action='store_true', help='average over scales and flips')
    _add_common(test_args)

    _add_predict(commands.add_parser('predict', help='segment images, videos and GeoTIFFs'))
    report_args = commands.add_parser('report', help='put the results of a work dir on one page')
    report_args.add_argument('work_dir', metavar='WORK_DIR', help='of trainings and tests')
    report_args.add_argument('--out', help='path of the page; WORK_DIR/report.html if not given')
    check_args = commands.add_parser('check', help='look at every image and label that a config names')
    check_args.add_argument('config', help='path of a config, or the name of a shipped one')
    check_args.add_argument('--workers', type=int, help='files at a time; as many as there are cores, up to 16')
    check_args.add_argument('--out', help='file for the whole report (JSON)')
    _add_options(check_args)
    _add_weights(commands.add_parser('weights', help='list, fetch, convert and check weights'))
    _add_demo(commands.add_parser('demo', help='try a checkpoint on a page in the browser, on this machine only'))
    commands.add_parser('doctor', help='versions, devices, caches, a training step: what is wrong, and how to right it')
    return root


def _add_predict(args: argparse.ArgumentParser) -> None:
    args.add_argument(
        'paths',
        nargs='+',
        metavar='MODEL',
        help='CONFIG CHECKPOINT INPUT..., or CHECKPOINT INPUT...: images, videos, GeoTIFFs, folders of them, or '
        'patterns such as "photos/*.jpg"',
    )
    args.add_argument('--out', required=True, help='folder for the results, a folder in it for each kind')
    args.add_argument(
        '--outputs',
        type=lambda text: text.split(','),
        default=['masks', 'overlays'],
        metavar='KIND,...',
        help='any of masks (class indices), colours, overlays (with a legend), confidence, probabilities, polygons '
        '(GeoJSON), areas (CSV: pixels, share, square metres); masks,overlays if not given',
    )
    args.add_argument('--overwrite', action='store_true', help='do anew what is done; without it, it is left alone')
    args.add_argument('--opacity', type=float, help='of the overlay, 0 to 1; 0.5 if not given')
    _add_speed(args)
    args.add_argument(
        '--windows',
        type=int,
        metavar='PIXELS',
        help='look through windows of this side at the own pixels of images, which are not resized first',
    )
    args.add_argument('--frames', action='store_true', help='masks of videos as PNG files, not as a lossless video')
    args.add_argument('--bands', type=_numbers, metavar='R,G,B', help='of images, counted from 1, e.g. 4,3,2')
    args.add_argument(
        '--value-range', type=float, nargs=2, metavar=('LOW', 'HIGH'), help='of images: what is black and what white'
    )


def _add_speed(args: argparse.ArgumentParser) -> None:
    args.add_argument('--device', help="e.g. 'cpu', 'cuda:1'")
    args.add_argument(
        '--optimize',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='on CPUs: folded batch norms, faster convolutions',
    )
    args.add_argument(
        '--bf16',
        action='store_true',
        help='compute in bfloat16: faster where the device has units for it, and some pixels change class',
    )


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(',')]
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected numbers, e.g. 4,3,2, got {text!r}') from None


def _add_train(args: argparse.ArgumentParser) -> None:
    args.add_argument('config', nargs='?', help='path of a config, or the name of a shipped one; or give --data')
    args.add_argument('--resume', action='store_true', help='go on from the latest checkpoint in the work dir')
    args.add_argument('--overwrite', action='store_true', help='begin anew, and remove the training in the work dir')
    args.add_argument(
        '--amp',
        action=argparse.BooleanOptionalAction,
        help='mixed precision: bfloat16 where the device has it; on by default on GPUs that have it',
    )
    args.add_argument(
        '--accumulate',
        type=int,
        default=1,
        metavar='N',
        help='update after N iterations; max_iters and intervals of the config then count updates',
    )
    args.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the batch')
    args.add_argument('--fsdp', action='store_true', help='split the model that does not fit one GPU over all')
    args.add_argument('--no-check', action='store_true', help='do not look at every pixel of the data first')
    _add_folder(args.add_argument_group('your own images', 'No config is needed: --data FOLDER --model caformer_s18'))
    _add_common(args)


def _add_folder(args: argparse._ArgumentGroup) -> None:
    args.add_argument('--data', help='folder of images and masks in a usual layout, or a CSV file of both')
    args.add_argument('--model', help='a backbone, e.g. caformer_s18 or volo_d1, or a config whose training to take')
    args.add_argument(
        '--classes', nargs='+', default=[], metavar='NAME', help='NAME, NAME=VALUE, NAME=R,G,B, or a file of them'
    )
    args.add_argument(
        '--ignore', nargs='+', default=[], metavar='VALUE', help='values, colours R,G,B or names that do not count'
    )
    args.add_argument('--binary', action='store_true', help='masks are black and white, blurred between')
    args.add_argument('--size', nargs='+', type=int, metavar='PIXELS', help='of training crops: SIDE or HEIGHT WIDTH')
    args.add_argument('--epochs', type=float, help='how often every image is seen')
    args.add_argument('--batch', type=int, help='images at a time; on a GPU as many as fit, up to 16')
    args.add_argument('--weights', help="what the backbone starts from; ImageNet weights if not given, or 'none'")
    args.add_argument('--seed', type=int, help='of the split and the training; 0 if not given')
    args.add_argument('--val-share', type=float, help='of images for validation, where the data have no split')
    args.add_argument('--images', help='folder of the images below --data, if its name does not say so')
    args.add_argument('--masks', help='folder of the masks below --data')
    args.add_argument('--skip-unpaired', action='store_true', help='leave out images without mask, masks without image')
    args.add_argument('--allow-outside', action='store_true', help='lists and tables may name files outside of --data')
    args.add_argument('--plan-only', action='store_true', help='say what was understood, write the config, and stop')


def _add_common(args: argparse.ArgumentParser) -> None:
    args.add_argument(
        '--log',
        action='append',
        choices=['tensorboard', 'wandb', 'mlflow'],
        help='log there too; give it again for another one',
    )
    args.add_argument('--work-dir', help='folder for logs and results; ./work_dirs/CONFIG if not given')
    args.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    args.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    _add_options(args)


def _add_options(args: argparse.ArgumentParser) -> None:
    args.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='what to have otherwise than the config'
    )


def _add_weights(root: argparse.ArgumentParser) -> None:
    commands = root.add_subparsers(dest='weights_command', required=True, metavar='list|fetch|convert|check')

    args = commands.add_parser('list', help='published weights, and which of them are here')
    args.add_argument('pattern', nargs='?', default='', help='part of a name, or with * and ?, e.g. "caformer*384"')

    args = commands.add_parser('fetch', help='download into the cache and print the paths')
    args.add_argument('names', nargs='+', metavar='NAME|URL|CONFIG', help='what `list` shows, or a config')

    args = commands.add_parser('convert', help='any readable weights to .safetensors')
    args.add_argument('source', metavar='SRC', help=SOURCE)
    args.add_argument('target', metavar='DST', help='path of the .safetensors file to be')
    args.add_argument('--config', help="convert to the keys of this config's backbone, without classifier")
    args.add_argument('--force', action='store_true', help='replace DST')
    args.add_argument(
        '--trust-pickle',
        action='store_true',
        help='read SRC even if it holds more than data: THIS RUNS ANY CODE THAT IS IN IT, so only a file that you '
        'would run as a program; its weights are written as plain data, which all else here takes',
    )
    _add_backbone(args)

    args = commands.add_parser('check', help='say whether weights fit, and which keys do not')
    args.add_argument('source', metavar='FILE', help=SOURCE)
    args.add_argument('config', nargs='?', help='whose model or backbone they should fit; our checkpoints know')
    _add_backbone(args)


def _add_demo(args: argparse.ArgumentParser) -> None:
    args.add_argument('paths', nargs='+', metavar='MODEL', help='CHECKPOINT, or CONFIG CHECKPOINT')
    _add_speed(args)
    args.add_argument('--port', type=int, help='the first free one from 7860 on if not given')
    args.add_argument('--max-mb', type=int, default=20, metavar='N', help='size of an upload; 20 if not given')
    args.add_argument('--max-megapixels', type=int, default=40, metavar='N', help='of an image; 40 if not given')


def _add_backbone(args: argparse.ArgumentParser) -> None:
    args.add_argument('--type', choices=FAMILIES, help='a backbone instead of a config')
    args.add_argument('--arch', help="of --type, e.g. 'd1'")
    args.add_argument('--img-size', type=int, default=224, help='of the images trained on; 224 if not given')
    args.add_argument('--prefix', default='', help="take only keys that begin so, without it, e.g. 'backbone.'")
