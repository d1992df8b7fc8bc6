"""Breadth-first search over the states of a model: the first violation found has a shortest trace."""
from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, deque
from typing import Iterator, NamedTuple, Protocol

NO_VIOLATION, VIOLATION, INCOMPLETE = 0, 1, 3


class Step(NamedTuple):
    event: str  # what kind of step; counted, so that "no violation" can be seen not to be vacuous
    text: str
    state: tuple
    broken: tuple[str, ...] = ()  # invariants that this very step violates
    actor: str = ""


class Model(Protocol):
    """What search needs. A state is a hashable value; a step is atomic, and a stall is an actor that is not chosen."""
    INVARIANTS: dict[str, str]
    check: frozenset[str]

    def bounds(self) -> str:
        """How much of everything there is, in short, for a table."""

    def initial(self) -> tuple: ...

    def steps(self, s: tuple) -> Iterator[Step]: ...

    def tidy(self, s: tuple) -> tuple:
        """The same state without what can have no effect any more."""

    def broken(self, before: tuple, step: Step) -> tuple[str, ...]:
        """Invariants that the step violates."""

    def broken_at_rest(self, s: tuple) -> tuple[str, ...]:
        """Invariants that are violated because no step is possible in this state."""

    def changes(self, before: tuple, step: Step) -> dict[str, object]:
        """What a trace in JSON says of a step beyond its actor and action."""


def by(actor: str, steps: Iterator[Step]) -> Iterator[Step]:
    for step in steps:
        yield step._replace(actor=actor)


class Result(NamedTuple):
    status: int
    verdict: str
    broken: tuple[str, ...]
    states: int
    transitions: int
    depth: int
    seconds: float
    events: Counter
    trace: list[tuple[tuple, Step]]  # each step with the state before it


def search(model: Model, max_states: int, max_seconds: float) -> Result:
    start, first = time.monotonic(), model.initial()
    parent: dict[tuple, tuple[tuple, int] | None] = {first: None}  # the state before, and which of its steps
    depth, todo, events, transitions = 0, deque([(first, 0)]), Counter(), 0

    def result(status: int, verdict: str, broken: tuple[str, ...] = (), trace: list | None = None) -> Result:
        seconds = time.monotonic() - start
        return Result(status, verdict, broken, len(parent), transitions, depth, seconds, events, trace or [])

    def path(state: tuple) -> list[tuple[tuple, Step]]:
        steps: list[tuple[tuple, Step]] = []
        link = parent[state]
        while link:
            before, number = link
            steps.append((before, list(model.steps(before))[number]))
            link = parent[before]
        return steps[::-1]

    def violation(broken: tuple[str, ...], trace: list[tuple[tuple, Step]]) -> Result:
        said = "; ".join(f"{b} ({model.INVARIANTS[b]})" for b in broken)
        return result(VIOLATION, f"VIOLATION of {said}", broken, trace)

    while todo:
        state, depth = todo.popleft()
        number = -1
        for number, step in enumerate(model.steps(state)):
            transitions += 1
            events[step.event] += 1
            broken = tuple(b for b in model.broken(state, step) if b in model.check)
            if broken:
                return violation(broken, [*path(state), (state, step)])
            after = model.tidy(step.state)
            if after not in parent:
                parent[after] = (state, number)
                todo.append((after, depth + 1))
        if number < 0:
            broken = tuple(b for b in model.broken_at_rest(state) if b in model.check)
            if broken:
                return violation(broken, path(state))
        if len(parent) > max_states or time.monotonic() - start > max_seconds:
            return result(INCOMPLETE, "INCOMPLETE: no violation so far, but the bound was reached")
    return result(NO_VIOLATION, "no violation")


class Switches:
    """What `add_arguments` sets, as every model keeps it."""
    INVARIANTS: dict[str, str]

    def __init__(self, a: argparse.Namespace) -> None:
        self.a = a
        self.mutate: frozenset[str] = frozenset(a.mutate)
        self.check: frozenset[str] = frozenset(a.check or self.INVARIANTS)


def add_arguments(p: argparse.ArgumentParser, invariants: dict[str, str], mutations: dict[str, str]) -> None:
    """The switches that every model has."""
    p.add_argument("--mutate", choices=tuple(mutations), action="append", default=[], metavar="RULE",
                   help="break a rule: " + "; ".join(f"{k}: {v}" for k, v in mutations.items()))
    p.add_argument("--check", choices=tuple(invariants), action="append", metavar="INVARIANT",
                   help="only these (default all): " + "; ".join(f"{k}: {v}" for k, v in invariants.items()))
    p.add_argument("--max-states", type=int, default=3_000_000)
    p.add_argument("--max-seconds", type=float, default=600)
    p.add_argument("--trace-json", metavar="FILE", help="also write the trace of a violation to FILE")


def trace_json(model: Model, result: Result) -> dict[str, object]:
    """The trace for programs that replay it."""
    steps = [{"actor": step.actor, "action": step.event, "text": step.text, **model.changes(before, step)}
             for before, step in result.trace]
    return {"violates": list(result.broken), "steps": steps}


def report(model: Model, a: argparse.Namespace, argv: list[str]) -> int:
    print("run: protocol " + " ".join(argv))
    found = search(model, a.max_states, a.max_seconds)
    print(f"states {found.states:,}  transitions {found.transitions:,}  depth {found.depth}  seconds {found.seconds:.1f}")
    print("events " + ", ".join(f"{name} {count}" for name, count in sorted(found.events.items())))
    print(f"verdict: {found.verdict}")
    for number, (_, step) in enumerate(found.trace, 1):
        print(f"{number:3}. {step.text}")
    if a.trace_json:
        with open(a.trace_json, "w", encoding="utf-8") as file:
            json.dump(trace_json(model, found), file, indent=2)
            file.write("\n")
    sys.stdout.flush()
    return found.status
