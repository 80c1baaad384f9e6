"""``vpt-analysis probe``: any probe on any mechanism, backbone and images, as a table to read and numbers to keep."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from pathlib import Path

from . import probe_output
from .errors import unknown

EXAMPLES = """examples:
  vpt-analysis probe --list
  vpt-analysis probe usage --mechanism vapt --length 5
  vpt-analysis probe tangent --mechanism lora --option rank=2 --images shapes-count --count 64 --out tangent.json
  vpt-analysis probe ablation --prompt my-prompt.safetensors --backbone vit.safetensors --images photos/
  vpt-analysis probe spectrum --import my_prompts.py --mechanism shifted --set queries=cls"""


def add_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", nargs="?", metavar="NAME", help="the probe")
    p.add_argument("--list", action="store_true", help="list the probes, their questions and settings, and stop")
    p.add_argument("--mechanism", help="a prompt mechanism, or for some probes a baseline (default: vpt-deep)")
    p.add_argument("--prompt", type=Path, metavar="FILE", help="a trained prompt or baseline in place of a fresh one")
    p.add_argument("--length", type=int, help="prompt tokens of a mechanism given by name (default: 10)")
    p.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the mechanism")
    p.add_argument("--backbone", default="vit-micro", help="a bundled name, or a weight file (default: %(default)s)")
    p.add_argument(
        "--images", nargs="+", default=["digits"], metavar="IMAGES",
        help="a data set by name or path, or image files and folders of images (default: digits)",
    )  # fmt: skip
    p.add_argument("--split", help="of a data set (default: test of those by name, else train)")
    p.add_argument("--count", type=int, default=64, metavar="N", help="images used, at most (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="initialisation, choice of images, resamples (default: 0)")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the probe")
    p.add_argument("--import", dest="module", metavar="MODULE",
                   help="a module or .py file that registers mechanisms of your own; it is executed")  # fmt: skip
    p.add_argument("--out", type=Path, metavar="FILE", help="write the numbers, with provenance, as .json or .csv")


def run(args: argparse.Namespace) -> int:
    """Print the table of a probe; write its numbers to ``args.out`` where that is given."""
    from .probes.commands import PROBES

    if args.list or args.name is None:
        print(probe_output.listing(PROBES))
        return 0 if args.list else 2
    if args.name not in PROBES:
        raise unknown("probe", args.name, PROBES)
    probe = PROBES[args.name]
    probe_output.check_out(args.out)
    settings = checked_settings(args.name, probe, parsed("--set", args.set))
    if args.module:
        imported(args.module)
    task, record = prepared(args, probe)
    table = probe.run(task, **settings)
    record |= {"probe": args.name, "question": probe.question, "settings": settings, "seed": args.seed}
    print(probe_output.text(table, record))
    if args.out is not None:
        probe_output.write(args.out, table, record)
        print(f"\nnumbers in {args.out}")
    return 0


def parsed(flag: str, pairs: list[str]) -> dict:
    """NAME=VALUE pairs; values are read as JSON where they are such, as text where not.

    >>> parsed("--set", ["queries=cls", "dead=0.1", "flag=true"])
    {'queries': 'cls', 'dead': 0.1, 'flag': True}
    """
    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ValueError(f"{flag} {pair}: expected NAME=VALUE")
        if name in found:
            raise ValueError(f"{flag} {name} is given twice")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def checked_settings(name: str, probe, given: dict) -> dict:
    """All settings of the probe, defaults filled in; a given one has to be of its default's type."""
    defaults = probe_output.settings(probe)
    for setting, value in given.items():
        if setting not in defaults:
            raise unknown(f"setting of probe {name}", setting, defaults)
        kind = type(defaults[setting])
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            raise ValueError(f"--set {setting}={value!r}: expected a {kind.__name__}, such as {defaults[setting]!r}")
    return defaults | given


def imported(module: str) -> None:
    """Import a module, or a ``.py`` file, for what it registers. Raises ``ImportError`` with what went wrong in it."""
    try:
        if module.endswith(".py"):
            path = Path(module)
            if not path.is_file():
                raise FileNotFoundError(f"no such file: {path}")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            made = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, made)
            spec.loader.exec_module(made)
        else:
            sys.path.insert(0, "")
            try:
                importlib.import_module(module)
            finally:
                sys.path.remove("")
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ImportError(f"--import {module} failed: {type(error).__name__}: {error}") from error


def prepared(args: argparse.Namespace, probe) -> tuple:
    """The task, and the record of what it is made of."""
    from .backbones import load_backbone
    from .probes.tables import Task
    from .vit import parameter_count

    if probe.fresh and args.prompt is not None:
        raise ValueError(
            f"probe {args.name} asks about a mechanism and makes prompts of its own; give --mechanism, with --length "
            f"and --option, in place of the trained ones of {args.prompt}"
        )
    vit = load_backbone(args.backbone)
    method, mechanism, length, options = method_of(args, vit)
    if length is None and not probe.baselines:
        raise ValueError(
            f"probe {args.name} takes prompts apart, and {mechanism} changes weights; choose a prompt mechanism, "
            f"or a probe that takes both: tangent, wang"
        )
    method.check_fits(vit)
    labels, pixels, described = None, None, None
    if probe.images:
        found = image_set(args, vit.config)
        labels, pixels, described = usable(found.labels), found.normalised(vit.config), found.describe()
        if probe.labels and labels is None:
            raise ValueError(
                f"probe {args.name} needs labels, and {', '.join(map(str, args.images))} has none; give --images a "
                f"data set with classes, such as digits, shapes-count or a folder of class folders"
            )
        pixels = pixels.to(vit.patch.weight)
    record = {
        "mechanism": mechanism, "length": length, "options": options, "trained": args.prompt and str(args.prompt),
        "parameters": parameter_count(method, trainable_only=True), "backbone": backbone_record(args.backbone),
        "images": described,
    }  # fmt: skip
    return Task(vit, method, mechanism, length or 0, options, pixels, labels, args.seed), record


def method_of(args: argparse.Namespace, vit) -> tuple:
    """The method, its name, its length (None for baselines) and its options: from a file, or fresh by name."""
    from . import baselines, prompts

    options = parsed("--option", args.option)
    if args.prompt is not None:
        if args.length is not None or options:
            raise ValueError("--prompt brings its own length and options; leave out --length and --option")
        method = from_file(args.prompt)
        if args.mechanism not in (None, method.name):
            raise ValueError(f"{args.prompt} holds {method.name}, not {args.mechanism}; leave out --mechanism")
        return method.to(vit.patch.weight).eval(), method.name, getattr(method, "length", None), method.options
    name = args.mechanism or "vpt-deep"
    if name in baselines.names():
        if args.length is not None:
            raise ValueError(f"{name} has no prompts and no --length; its size is an option, as --option rank=2")
        return baselines.create(name, vit, seed=args.seed, **options).eval(), name, None, options
    if name not in prompts.names():
        raise unknown("mechanism or baseline", name, [*prompts.names(), *baselines.names()])
    length = 10 if args.length is None else args.length
    made = prompts.create(name, vit.config, length, seed=args.seed, **options)
    return made.to(vit.patch.weight).eval(), name, length, options


def from_file(path: Path):
    from . import baselines, prompts

    try:
        return prompts.load(path)
    except ValueError as error:
        if "holds a baseline" not in str(error):
            raise
        return baselines.load(path)


def image_set(args: argparse.Namespace, config):
    """At most ``count`` images: of a data set with labels a stratified draw, of pictures the first."""
    from . import data

    if args.count < 1:
        raise ValueError(f"--count is {args.count}; expected at least 1")
    (first, *more) = args.images
    if not more and (data.is_name(first) or is_data_set(Path(first))):
        split = args.split or ("test" if data.is_name(first) else "train")
        found = data.load(first, split, config.image_size)
    else:
        if args.split:
            raise ValueError("--split is for data sets; pictures have none")
        if not more and not Path(first).exists() and not Path(first).suffix:
            raise unknown("data set (and no file of that name)", first, data.names())
        found = data.pictures(args.images, size=config.image_size)
    if args.count >= len(found):
        return found
    if usable(found.labels) is None:
        return found.select(range(args.count))
    return found.subset(n=args.count, seed=args.seed)


def is_data_set(path: Path) -> bool:
    """Packed images, IDX files, or a folder of folders; other paths are pictures."""
    if path.is_dir():
        return any(p.is_dir() for p in path.iterdir() if not p.name.startswith(".")) or any(path.glob("*-ubyte*"))
    return path.is_file() and (path.suffix in (".tar", ".npz") or "ubyte" in path.name)


def usable(labels):
    """Labels, None where some image has none."""
    return labels if len(labels) and int(labels.min()) >= 0 else None


def backbone_record(source: str) -> dict:
    """The name, and the digest of the file where there is one."""
    from .storage import digest_file

    bundled = Path(__file__).parent / "weights" / f"{source}.safetensors"
    path = bundled if bundled.is_file() else Path(source)
    return {"source": source, "sha256": digest_file(path) if path.is_file() else None}
