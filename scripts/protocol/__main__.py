"""`python3 scripts/protocol MODEL [switches]`: the model checker of docs/PROTOCOL.md. Standard library only.

MODEL is a variant of the commit protocol (seq, cas, cas+ep, fence, full; see commit.py), or one of the protocols around it:
create, deliver, join, stop (see creation.py, delivery.py, join.py, stopping.py). `traces` prints every named trace as JSON, `table FILE` runs
every command in the tables of that file again and rewrites their figures.
Exit status: 0 no violation, 1 violation, 2 bad arguments, 3 bound reached before the search was complete.
"""
from __future__ import annotations

import argparse
import gc
import sys

from creation import CreationModel
from commit import VARIANTS, CommitModel
from delivery import DeliveryModel
from join import JoinModel
from search import report
from stopping import StopModel
from table import rewrite
from traces import print_traces

MODELS = {**dict.fromkeys(VARIANTS, CommitModel), "create": CreationModel, "deliver": DeliveryModel, "join": JoinModel, "stop": StopModel}


def parse(argv: list[str]) -> tuple[object, argparse.Namespace]:
    model = MODELS[argv[0]]
    p = argparse.ArgumentParser(prog=f"protocol {argv[0]}", description=sys.modules[model.__module__].__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    model.arguments(p)
    a = p.parse_args(argv)
    model.refuse(p, a)
    return model(a), a


def main(argv: list[str]) -> int:
    if argv[:1] == ["traces"] and len(argv) == 1:
        return print_traces(parse)
    if argv[:1] == ["table"] and len(argv) == 2:
        return rewrite(argv[1], parse)
    if not argv or argv[0] not in MODELS:
        print(__doc__, file=sys.stdout if argv[:1] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    model, a = parse(argv)
    return report(model, a, argv)


if __name__ == "__main__":
    gc.disable()  # millions of tuples and not one cycle
    sys.exit(main(sys.argv[1:]))
