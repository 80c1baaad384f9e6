"""The ``vpt-analysis`` command: thin, each subcommand calls one function of the package.

Exit codes: 0 done, 1 the work itself failed, 2 wrong usage or input that cannot be used, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from . import probe_command, sweep_command

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
OUT = Path("paper_figures") / "out"
# What the package raises for input it cannot use: values, types, files, an extra that is not installed, and weights or
# scores beyond the dtype (SplitError).
BAD_INPUT = (ValueError, TypeError, OSError, ImportError, ArithmeticError)

FIGURES = """examples:
  vpt-analysis figures                          all figures, small sizes, into paper_figures/out
  vpt-analysis figures spectrum --tier full     one figure at full size; needs VPT_ANALYSIS_DATA; resumes
  vpt-analysis figures --tier committed         draw the stored results of the full tier, in seconds"""
CLAIMS = """examples:
  vpt-analysis claims                       verdicts on all claims, from the stored results, in seconds
  vpt-analysis claims C4 C20                two of them
  vpt-analysis claims --tier full --commit  compute everything again and store it; needs VPT_ANALYSIS_DATA; resumes"""
STUDY = """examples:
  vpt-analysis study --list
  vpt-analysis study rates --tier full --commit    choose the learning rates of the family study anew, and store them
  vpt-analysis study one_shot --tier full --extend --commit    compute only what its config has more than before"""
DECOMPOSE = """examples:
  vpt-analysis decompose cat.jpg dog.jpg --backbone vit-micro --prompt my-prompt.safetensors --out split
  vpt-analysis decompose photos/ --backbone vit_base.npz --prompt vpt-deep --length 10 --out split"""
PRETRAIN = """examples:
  vpt-analysis pretrain --data tinyimagenet32.npz --out runs/micro
  vpt-analysis pretrain --data tinyimagenet32.npz --out runs/try --epochs 1 --early-epochs 0 --limit 2000"""
BACKBONES = """examples:
  vpt-analysis backbones"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="vpt-analysis",
        description="Take the attention of a prompted Vision Transformer apart, and measure what its prompts do.",
        epilog="Exit codes: 0 done, 1 the work failed, 2 wrong usage or unusable input, 130 interrupted.",
    )
    top.add_argument("--version", action="store_true", help="print the version and what it runs on")
    top.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_Command)

    p = _command(commands, "figures", "draw the paper's figures", FIGURES, figures)
    p.add_argument("names", nargs="*", metavar="NAME", help="figures to draw (default: all)")
    p.add_argument("--tier", default="quick", help="quick (default), full or committed")
    p.add_argument("--out", default=OUT, type=Path, help="folder (default: %(default)s)")
    p.add_argument("--commit", action="store_true", help="with --tier full: store the results for the committed tier")
    p.add_argument("--jobs", type=int, help="parts computed at a time, one thread each (default: the cores there are)")
    p.add_argument("--list", action="store_true", help="list the figures and stop")

    p = _command(commands, "claims", "say which published claims hold, by fixed rules", CLAIMS, claims)
    p.add_argument("ids", nargs="*", metavar="ID", help="claims such as C4 (default: all)")
    p.add_argument("--tier", default="committed", help="committed (default), quick or full")
    _study_flags(p, "store the results and the verdicts; with --tier committed the verdicts alone")
    p.add_argument("--list", action="store_true", help="list the claims and stop")

    p = _command(commands, "study", "compute a study that claims and figures draw on", STUDY, study)
    p.add_argument("name", nargs="?", metavar="NAME", help="the study")
    p.add_argument("--tier", default="quick", choices=("quick", "full"), help="quick (default) or full")
    _study_flags(p, "with --tier full: store the results, and the verdicts of claims that draw on them")
    p.add_argument("--extend", action="store_true", help="with --tier full: keep committed parts, compute what is new")
    p.add_argument("--list", action="store_true", help="list the studies and stop")

    p = _command(commands, "decompose", "split attention on your own images", DECOMPOSE, decompose)
    p.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of images")
    p.add_argument("--backbone", default="vit-micro", help="a bundled name, or a weight file (default: %(default)s)")
    p.add_argument("--prompt", default="vpt-deep", help="a prompt file, or a mechanism's name (default: %(default)s)")
    p.add_argument("--length", type=int, default=10, help="prompt tokens of a mechanism given by name (default: 10)")
    p.add_argument("--seed", type=int, default=0, help="initialisation of a mechanism given by name (default: 0)")
    p.add_argument("--out", required=True, type=Path, help="folder for pictures and table.csv")

    p = _command(
        commands, "probe", "measure one thing about any mechanism on any backbone", probe_command.EXAMPLES, probe
    )
    probe_command.add_flags(p)

    p = _command(commands, "sweep", "compare methods over tasks, data sizes and seeds", sweep_command.EXAMPLES, sweep)
    sweep_command.add_flags(p)

    p = _command(commands, "pretrain", "train the bundled backbone again", PRETRAIN, pretrain)
    p.add_argument("--data", required=True, type=Path, help="packed images (.npz)")
    p.add_argument("--out", required=True, type=Path, help="folder for weights and log; a run resumes in it")
    p.add_argument("--start", type=Path, metavar="DIR", help="begin with the weights of an earlier run's folder")
    p.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    p.complete = _recipe_flags

    _command(commands, "backbones", "list the bundled backbones", BACKBONES, backbones)
    return top


class _Command(argparse.ArgumentParser):
    """A subcommand's parser. ``complete(parser)`` adds arguments whose definition needs heavy imports; it is called
    only when this subcommand is the one asked for."""

    complete = None

    def parse_known_args(self, args=None, namespace=None):
        if self.complete is not None:
            complete, self.complete = self.complete, None
            complete(self)
        return super().parse_known_args(args, namespace)


def _command(commands, name: str, what: str, examples: str, run) -> _Command:
    p = commands.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + ".", epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help="show where an error came from")
    p.set_defaults(run=run)
    return p


def _study_flags(p: argparse.ArgumentParser, commit: str) -> None:
    p.add_argument("--out", default=OUT, type=Path, help="folder whose cache is used (default: %(default)s)")
    p.add_argument("--commit", action="store_true", help=commit)
    p.add_argument("--jobs", type=int, help="parts computed at a time, one thread each (default: the cores there are)")


def _recipe_flags(p: argparse.ArgumentParser) -> None:
    """One flag for every number of the training recipe, read off its dataclass so that the two cannot drift apart."""
    from .pretrain import Recipe

    group = p.add_argument_group("recipe")
    for f in fields(Recipe):
        flag, several = "--" + f.name.replace("_", "-"), isinstance(f.default, tuple)
        kind, shown = (float, " ".join(map(str, f.default))) if several else (type(f.default), f.default)
        count = {"nargs": len(f.default)} if several else {}
        group.add_argument(flag, type=kind, default=f.default, metavar="N", help=f"default: {shown}", **count)
    p.set_defaults(recipe_flags=tuple(f.name for f in fields(Recipe)))


def figures(args: argparse.Namespace) -> int:
    from paper_figures import _registry, _run

    from .threads import available_cores

    if args.list:
        for name in _registry.names():
            print(f"{name:<20} {_registry.load(name).TITLE}")
        return OK
    jobs = available_cores() if args.jobs is None else args.jobs
    return _run.run(args.names, args.tier, args.out, commit=args.commit, jobs=jobs, show_traceback=args.traceback)


def claims(args: argparse.Namespace) -> int:
    from .claims import chosen, text
    from .threads import available_cores

    if args.list:
        print(text.listing(chosen(args.ids)))
        return OK
    jobs = available_cores() if args.jobs is None else args.jobs
    return text.run(args.ids, args.tier, args.out, args.commit, jobs)


def study(args: argparse.Namespace) -> int:
    from . import study as machinery
    from .claims import stored
    from .extended import Extended
    from .threads import available_cores

    if args.list or args.name is None:
        print("\n".join(machinery.names()))
        return OK if args.list else USAGE
    jobs = available_cores() if args.jobs is None else args.jobs
    module = machinery.study(args.name)
    machinery.check(args.tier, args.commit, jobs)
    machinery.check_writable(args.out)
    if args.extend:
        if args.tier != "full":
            raise ValueError("--extend keeps committed results, which are of the full tier; add --tier full")
        plan = Extended(module, args.out / "cache")
    else:
        plan = machinery.Computed(module, args.tier, args.out / "cache")
    arrays = plan.arrays(jobs)
    print(f"{args.name}: {len(plan.parts)} parts, {args.tier} tier, kept in {plan.cache}")
    if args.commit:
        stored.store(plan, arrays)
        print(f"stored in {machinery.COMMITTED}")
    return OK


def decompose(args: argparse.Namespace) -> int:
    from . import report

    return report.run(args.images, args.backbone, args.prompt, args.length, args.seed, args.out)


def probe(args: argparse.Namespace) -> int:
    return probe_command.run(args)


def sweep(args: argparse.Namespace) -> int:
    return sweep_command.run(args)


def pretrain(args: argparse.Namespace) -> int:
    from .pretrain import Recipe
    from .pretrain import pretrain as train

    given = {name: getattr(args, name) for name in args.recipe_flags}
    recipe = Recipe(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    card = train(args.data, args.out, recipe, args.device, args.start)
    print(f"top-1 {card['top1']:.3f} on the test split; weights and model card in {args.out}")
    return OK


def backbones(args: argparse.Namespace) -> int:
    from . import report

    print(report.bundled_table())
    return OK


def version() -> str:
    from .provenance import provenance

    made = provenance()
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items() if name != "vpt-analysis")
    commit = f"commit {made['commit'][:12]}{' with local changes' if made['dirty'] else ''}, " if made["commit"] else ""
    return f"vpt-analysis {made['versions']['vpt-analysis']} ({commit}{versions}, {made['platform']})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; wrong usage ends in argparse's own ``SystemExit(2)``."""
    top = parser()
    args = top.parse_args(argv)
    if args.version:
        print(version())
        return OK
    if args.command is None:
        top.print_help()
        return USAGE
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print(f"vpt-analysis {args.command}: interrupted; nothing half-written was left", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `vpt-analysis ... | head`
        sys.stderr.close()
        return OK
    except BAD_INPUT as error:
        return _complain(args, error, USAGE)
    except Exception as error:
        return _complain(args, error, FAILED)


def _complain(args: argparse.Namespace, error: Exception, code: int) -> int:
    if args.traceback:
        traceback.print_exception(error)
    else:
        print(f"vpt-analysis {args.command}: {error or type(error).__name__}", file=sys.stderr)
        if code == FAILED:
            print("(an error of the program itself; --traceback shows where)", file=sys.stderr)
    return code
