"""Whole training against its peers: frames per second, and frames until a skill is proven.

    python benchmarks/whole.py speed [--peer CHECKOUT --peer-python PYTHON] [--pin CPU]
    python benchmarks/whole.py frames --seeds 0 1 2 [--skip plain]

`speed` compares FlowRL with K experts, the dense mixture and Craftax_Baselines' PPO, each in a process of its own, in
turns; `frames` compares protocols, see `frames.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any


def speed(args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    import speed as subject

    peer = subject.Peer(args.peer, args.peer_python) if args.peer else None
    sizes, rounds, updates, variants = args.sizes, args.rounds, args.updates, args.variants
    if args.quick:
        sizes, rounds, updates, variants = ["small"], 1, 1, ["routed:4", "dense:4"]
    if peer and "peer" not in variants:
        variants = [*variants, "peer"]
    rows = []
    for size in sizes:
        rows += subject.compare(size, variants, updates, rounds, cache, peer)
    return {"rows": rows, "lines": list(subject.table(rows))}


def frames(args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    import frames as subject

    protocols = tuple(name for name in ("ours", "masked", "original", "plain") if name not in args.skip)
    training, evaluation = split_fields(args.set)
    targets = (subject.TARGET, *(subject.OTHERS if args.all else ()))
    options: dict[str, Any] = {"plain_cap": args.plain_frames}
    if args.quick:
        training, targets = {**training, "frames": "4096"}, ("collect_wood",)
        options = {"original_cap": 4096, "plain_cap": 4096, "plain_every": 4096}
    plans = subject.Plans(protocols, targets, training, evaluation, tuple(args.override), **options)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for row in subject.compare(plans, args.seeds[:1] if args.quick else args.seeds, cache, Path(root)):
            rows.append(row)
            print(f"{row.protocol}, seed {row.seed}: {row.frames:.0f} frames", file=sys.stderr, flush=True)
    return {"rows": rows, "lines": list(subject.table(rows))}


def split_fields(settings: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return FIELD=VALUE settings as fields of training and of evaluation."""
    from flowrl_core.specs.skill import TrainingSpec

    fields = dict(setting.split("=", 1) for setting in settings)
    training = {name: value for name, value in fields.items() if name in TrainingSpec.model_fields}
    return training, {name: value for name, value in fields.items() if name not in training}


@contextmanager
def cache_directory(path: Path | None) -> Iterator[Path]:
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as fresh:
        yield Path(fresh)


def arguments() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print only JSON")
    common.add_argument("--quick", action="store_true", help="a smoke run: figures without meaning")
    common.add_argument("--pin", type=int, metavar="CPU", help="run on this core alone")
    common.add_argument("--cache", type=Path, help="where compiled programs are kept; by default not at all")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    one = commands.add_parser("speed", parents=[common], help="frames per second")
    one.set_defaults(run=speed)
    one.add_argument("--peer", type=Path, help="a checkout of Craftax_Baselines")
    one.add_argument("--peer-python", default=sys.executable, help="an interpreter with its requirements")
    one.add_argument("--sizes", nargs="+", choices=["small", "large"], default=["small", "large"])
    one.add_argument("--rounds", type=int, default=7)
    one.add_argument("--updates", type=int, default=30, help="updates of one measurement")
    known = ["routed:1", "routed:2", "routed:4", "routed:8", "routed:16", "dense:4", "dense:8"]
    one.add_argument("--variants", nargs="+", default=known, help="routed:K, dense:K; routed:4 must be among them")

    two = commands.add_parser("frames", parents=[common], help="frames and CPU seconds to the bound")
    two.set_defaults(run=frames)
    two.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    two.add_argument("--skip", nargs="+", choices=["ours", "masked", "original", "plain"], default=[])
    two.add_argument("--plain-frames", type=int, default=1_000_000, help="most frames of plain PPO")
    two.add_argument("--all", action="store_true", help="ours: all skills of the demo, not only the stone pickaxe's")
    two.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="ours: a training or evaluation field")
    two.add_argument("--override", nargs="+", default=[], metavar="SKILL.FIELD=VALUE", help="ours: for one skill")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.pin is not None:
        os.sched_setaffinity(0, {args.pin})
    with cache_directory(args.cache) as cache:
        result = args.run(args, cache)
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in result["rows"]]}))
    else:
        print("\n".join(result["lines"]))


if __name__ == "__main__":
    main()
