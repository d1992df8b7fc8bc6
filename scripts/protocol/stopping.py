"""Early stop of a job in shards, one chain each: s* is the first step at which the vote is decided, whoever hears of what when.

  shard   commits one step more -> tells the parent what it has committed, and hears what the others have told (CAS; with `--skip` perhaps not)
          -> over when its chain finishes, or at a step at which the vote is decided as far as it knows, and tells that
  parent  all shards over and told: s* of all that was told, every chain cut there

A chain's steps and answer are those of its tokens, so a shard that crashes makes the same ones again; what it had heard is gone. What is not known of a
chain that may have finished earlier is taken as it would be worst: it may win any tie (engine/job/vote.ts, `decidedStep`).

Not modelled: the join itself and cancels (join.py), answers that change with the numerics.
"""
from __future__ import annotations

import argparse
from itertools import product
from typing import Iterator, NamedTuple

from search import add_arguments, by, Step, Switches

INVARIANTS = {
    "exact": "the parent is done with another s* than that of a run that has all chains",
    "short": "a shard ended its chain before s*",
    "ended": "nothing can happen any more, and the parent is not done",
}
MUTATIONS = {
    "late": "a chain of which nothing is known is taken to finish late, so that it loses ties",
    "own-chains": "a shard decides by the chains that it knows of, as if there were no others",
    "first-bound": "the step at which a shard first knew the vote to be decided is s*",
    "no-cut": "chains are not cut at s*: the last step of those that were ended is s*",
}
NEVER = 99


class Chain(NamedTuple):
    finish: int = 0  # step; 0: not chosen yet
    key: str = ""
    at: int = 0  # committed
    over: bool = False
    told: int = -1  # as the parent knows: -1 nothing
    told_over: bool = False


class State(NamedTuple):
    rule: str
    chains: tuple[Chain, ...]
    heard: tuple[tuple[int, ...], ...]  # by shard: how much of each chain it knows, -1 nothing
    bound: int = NEVER  # the first step that a shard ended its chain at
    done: int = 0  # s*, once the parent is done
    crashes_left: int = 0


def tally(ballots: list[tuple[int, int, str]]) -> list[tuple[int, tuple[int, int], str]]:
    """Best first: (votes, first ballot, key)."""
    first: dict[str, tuple[int, int]] = {}
    votes: dict[str, int] = {}
    for step, chain, key in sorted(ballots):
        first.setdefault(key, (step, chain))
        votes[key] = votes.get(key, 0) + 1
    return sorted(((n, first[k], k) for k, n in votes.items()), key=lambda t: (-t[0], t[1]))


def is_decided(rule: str, ballots: list[tuple[int, int, str]], left: int, early: int) -> bool:
    if left == 0:
        return True
    if rule == "first":
        return bool(ballots)
    ranked = tally(ballots)
    if not ranked or left > ranked[0][0] or (early and left == ranked[0][0]):
        return False
    lead, first, _ = ranked[0]
    return all(n + left < lead or (n + left == lead and not early and first < f) for n, f, _ in ranked[1:])


class StopModel(Switches):
    INVARIANTS = INVARIANTS

    @staticmethod
    def arguments(p: argparse.ArgumentParser) -> None:
        p.add_argument("model", choices=("stop",))
        p.add_argument("--shards", type=int, default=3)
        p.add_argument("--length", type=int, default=2, help="steps of a chain, at most")
        p.add_argument("--keys", type=int, default=2)
        p.add_argument("--rule", choices=("majority", "first"), default="majority")
        p.add_argument("--skip", action="store_true", help="a shard may tell nothing after a commit")
        p.add_argument("--crash", type=int, nargs="?", const=1, default=0, help="crashes, at most")
        add_arguments(p, INVARIANTS, MUTATIONS)

    @staticmethod
    def refuse(p: argparse.ArgumentParser, a: argparse.Namespace) -> None:
        if min(a.shards, a.length, a.keys) < 1:
            p.error("--shards, --length and --keys must be at least 1")

    def bounds(self) -> str:
        return f"{self.a.shards}s×{self.a.length}l×{self.a.keys}k"

    def initial(self) -> State:
        n = self.a.shards
        return State(self.a.rule, (Chain(),) * n, ((-1,) * n,) * n, crashes_left=self.a.crash)

    def tidy(self, s: State) -> State:
        return s

    def decided_at(self, s: State, known: tuple[int, ...]) -> int:
        """The least step at which the vote is known to be decided; NEVER: none. known: steps of each chain that are known, -1 nothing."""
        count = sum(k >= 0 for k in known) if "own-chains" in self.mutate else len(known)
        seen = [(c.finish, i, c.key) for i, (c, k) in enumerate(zip(s.chains, known)) if c.finish <= k]
        for step in sorted({b[0] for b in seen}):
            cast = [b for b in seen if b[0] <= step]
            early = sum(1 for c, k in zip(s.chains, known) if c.finish > k and k < step and (k >= 0 or "own-chains" not in self.mutate))
            if is_decided(s.rule, cast, count - len(cast), 0 if "late" in self.mutate else early):
                return step
        return NEVER

    def steps(self, s: State) -> Iterator[Step]:
        if s.chains[0].finish == 0:
            answers = list(product(range(1, self.a.length + 1), "abcdefgh"[:self.a.keys]))
            for job in product(answers, repeat=self.a.shards):
                chains = tuple(Chain(f, k) for f, k in job)
                yield Step("job", f"the chains finish as {job}", s._replace(chains=chains), actor="Job")
            return
        for i in range(len(s.chains)):
            yield from by(f"S{i + 1}", self.shard(s, i))
        if not s.done and all(c.told_over for c in s.chains):
            star = self.star(s)
            yield Step("parent done", f"the last shard is joined: s* is {star}", s._replace(done=star), actor="Parent")

    def put(self, s: State, i: int, chain: Chain, **changes: object) -> State:
        return s._replace(chains=s.chains[:i] + (chain,) + s.chains[i + 1:], **changes)

    def tell(self, s: State, i: int) -> State:
        """What it has committed is in the parent, and it has read what the others have there."""
        c = s.chains[i]
        after = self.put(s, i, c._replace(told=c.at, told_over=c.over))
        heard = (NEVER,) * len(s.chains) if c.over else tuple(o.told for o in after.chains)
        return after._replace(heard=s.heard[:i] + (heard,) + s.heard[i + 1:])

    def shard(self, s: State, i: int) -> Iterator[Step]:
        c, me = s.chains[i], f"S{i + 1}"
        if c.over:
            return
        stop = self.decided_at(s, s.heard[i][:i] + (c.at,) + s.heard[i][i + 1:])
        if c.at >= c.finish or c.at >= stop:
            said = "its chain finishes" if c.at >= c.finish else f"the vote is decided at {stop}"
            bound = stop if c.at < c.finish and s.bound == NEVER else s.bound
            yield Step("over", f"{me} ends at {c.at}: {said}", self.tell(self.put(s, i, c._replace(over=True), bound=bound), i))
            return
        on = self.put(s, i, c._replace(at=c.at + 1))
        yield Step("commit", f"{me} commits step {c.at + 1}, and is heard", self.tell(on, i))
        if self.a.skip:
            yield Step("commit alone", f"{me} commits step {c.at + 1}, and nobody hears", on)
        if s.crashes_left and any(k >= 0 for k in s.heard[i]):
            heard = s.heard[:i] + ((-1,) * len(s.chains),) + s.heard[i + 1:]
            yield Step("crash", f"{me} crashes", s._replace(heard=heard, crashes_left=s.crashes_left - 1))

    def star(self, s: State) -> int:
        if "first-bound" in self.mutate and s.bound != NEVER:
            return s.bound
        if "no-cut" in self.mutate and s.bound != NEVER:
            return max(c.at for c in s.chains if c.at < c.finish)
        return self.decided_at(s, tuple(c.told for c in s.chains))

    def true_star(self, s: State) -> int:
        seen = [(c.finish, i, c.key) for i, c in enumerate(s.chains)]
        for step in sorted({b[0] for b in seen}):
            cast = [b for b in seen if b[0] <= step]
            if is_decided(s.rule, cast, len(seen) - len(cast), 0):
                return step
        return NEVER

    def broken(self, before: State, step: Step) -> tuple[str, ...]:
        s: State = step.state
        if step.event == "over" and any(c.over and c.at < min(c.finish, self.true_star(s)) for c in s.chains):
            return ("short",)
        return ("exact",) if step.event == "parent done" and s.done != self.true_star(s) else ()

    def broken_at_rest(self, s: State) -> tuple[str, ...]:
        return () if s.done else ("ended",)

    def changes(self, before: State, step: Step) -> dict[str, object]:
        s = step.state
        return {"at": [c.at for c in s.chains]} if s.chains != before.chains else {}
