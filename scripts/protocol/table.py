"""The tables of docs/PROTOCOL.md: `| \\`command\\` | bounds | states | verdict | s |`. Their figures come from here, never from a hand."""
from __future__ import annotations

import re
import sys
from typing import Callable

from search import INCOMPLETE, VIOLATION, Result, search

ROW = re.compile(r"^\| `([^`]+)` \|.*\|$")


def verdict(found: Result) -> str:
    if found.status == VIOLATION:
        return f"**violates {', '.join(found.broken)}**, {len(found.trace)} step{'s' if len(found.trace) > 1 else ''}"
    return "none found, **not finished**" if found.status == INCOMPLETE else "no violation"


def row(command: str, parse: Callable) -> str:
    model, a = parse(command.split())
    found = search(model, a.max_states, a.max_seconds)
    return f"| `{command}` | {model.bounds()} | {found.states:,} | {verdict(found)} | {found.seconds:.1f} |"


def rewrite(path: str, parse: Callable) -> int:
    """Runs every row's command again and puts what it found in the row's place."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    for number, line in enumerate(lines):
        match = ROW.match(line)
        if match:
            lines[number] = row(match[1], parse)
            print(lines[number], file=sys.stderr, flush=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    return 0
