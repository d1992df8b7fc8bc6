"""A job in shards: each child ends by itself, and the parent is done once every child has been joined.

  worker      receives {child} -> child not over: CAS child epoch+1 (take) -> run -> CAS child done, with its ballots
              -> join: GET child, GET parent -> its bit is set, or the parent is over: nothing to do
                       | CAS parent: set the bit, add the child's ballots, done if that was the last bit; poisoned if the child is
              -> ack. A redelivered message of a child that is over begins at the join
  reconciler  for every child that is over: joins it; for every child of a parent that is over, but not done: cancels it
  canceller   CAS parent cancelled -> for every child that is not over: CAS epoch+1, cancelled

The parent has no epoch owner: any number of workers CAS it, and a refused one reads again. Its bit makes a join idempotent,
so a lost reply needs no writeNonce. A child's ballots are those in its HEAD: they name the epoch that ended it, since
another run of the shard could have other ones (a chain that was cut off, a verifier that timed out). `--poison` lets children
end without ballots: such a job has no result, and is over with the first of them.

Not modelled: early stop (stopping.py), the split of kv_reads, the objects behind the HEADs (commit.py), slices of a child (delivery.py).
"""
from __future__ import annotations

import argparse
from typing import Iterator, NamedTuple

from search import add_arguments, by, Step, Switches

OVER = ("done", "poisoned", "cancelled")
INVARIANTS = {
    "counted": "the parent counts a child's ballots twice, not at all, or other ones than the child's HEAD holds",
    "all": "the parent is done and a child is not over or not counted",
    "ended": "every child is over, nothing can happen any more, and the parent is not over",
    "final": "a parent or child in a terminal state changed",
    "cancelled": "the parent is cancelled or poisoned, nothing can happen any more, and a child is not over",
    "fencing": "a child ended by an older epoch after a take",
}
MUTATIONS = {
    "counter": "the parent counts joins instead of setting a bit",
    "blind-join": "the parent is written without a condition",
    "ack-before-join": "the message is acked once the child is done, before the join",
    "redelivery-acks": "a redelivered message of a child that is over is acked without a join",
    "join-before-done": "the ballots are joined before the child's HEAD holds them",
    "two-writes": "the ballots are added in one write and the bit is set in the next",
    "join-from-memory": "a fenced worker joins the ballots it remembers",
    "join-revives": "a join into a cancelled parent is written all the same",
    "cancel-parent-only": "nobody cancels the children of a cancelled parent",
}


class Child(NamedTuple):
    version: int = 0
    epoch: int = 0
    state: str = "running"
    ballots: int = 0  # the epoch whose run they are; 0: none


class Parent(NamedTuple):
    version: int = 0
    state: str = "running"
    bits: frozenset = frozenset()
    tally: tuple[tuple[int, int], ...] = ()  # (child, ballots) as added, sorted

    def __str__(self) -> str:
        return f"parent v{self.version} {self.state} bits {sorted(self.bits)} ballots {list(self.tally)}"


class Worker(NamedTuple):
    pc: str = "idle"
    child: int = 0
    epoch: int = 0
    version: int = 0  # of the child, as read
    ballots: int = 0
    seen: Parent | None = None


class Canceller(NamedTuple):
    pc: str = "idle"
    seen: int = 0  # the parent's version


class State(NamedTuple):
    parent: Parent
    children: tuple[Child, ...]
    workers: tuple[Worker, ...]
    messages: frozenset  # children whose message was not acked yet
    cancellers: tuple[Canceller, ...] = ()
    crashes_left: int = 0
    lost_left: int = 0
    poison_left: int = 0
    takes_left: int = 0


class JoinModel(Switches):
    INVARIANTS = INVARIANTS

    @staticmethod
    def arguments(p: argparse.ArgumentParser) -> None:
        p.add_argument("model", choices=("join",))
        p.add_argument("--shards", type=int, default=2)
        p.add_argument("--workers", type=int, default=2)
        p.add_argument("--takes", type=int, default=3, help="takes of children in all, at most; at least one a shard")
        p.add_argument("--crash", type=int, nargs="?", const=1, default=0, help="crashes of workers and cancellers, at most")
        p.add_argument("--lost-acks", type=int, nargs="?", const=1, default=0, help="replies to a join lost, at most")
        p.add_argument("--poison", type=int, nargs="?", const=1, default=0, help="children that end poisoned, at most")
        p.add_argument("--cancels", type=int, nargs="?", const=1, default=0, help="who may cancel the parent")
        p.add_argument("--no-reconciler", action="store_true")
        add_arguments(p, INVARIANTS, MUTATIONS)

    @staticmethod
    def refuse(p: argparse.ArgumentParser, a: argparse.Namespace) -> None:
        if min(a.shards, a.workers) < 1 or a.takes < a.shards:
            p.error("--shards and --workers must be at least 1, --takes at least --shards")

    def bounds(self) -> str:
        return f"{self.a.workers}w×{self.a.shards}s×{self.a.takes}t"

    def initial(self) -> State:
        a = self.a
        return State(Parent(), (Child(),) * a.shards, (Worker(),) * a.workers, frozenset(range(a.shards)),
                     (Canceller(),) * a.cancels, a.crash, a.lost_acks, a.poison, a.takes)

    def tidy(self, s: State) -> State:
        return s

    def steps(self, s: State) -> Iterator[Step]:
        for i, w in enumerate(s.workers):
            if i and w == s.workers[i - 1]:
                continue  # alike: letting the first one go is enough
            yield from by(f"W{i + 1}", self.worker(s, i, w))
        for k, c in enumerate(s.cancellers):
            yield from by(f"Cancel{k + 1}", self.canceller(s, k, c))
        if not self.a.no_reconciler:
            yield from by("Reconciler", self.reconciler(s))

    def put(self, s: State, i: int, w: Worker, **changes: object) -> State:
        return s._replace(workers=s.workers[:i] + (w,) + s.workers[i + 1:], **changes)

    def put_child(self, s: State, i: int, child: Child) -> State:
        return s._replace(children=s.children[:i] + (child,) + s.children[i + 1:])

    # Worker --------------------------------------------------------------------------------------------------------

    def worker(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        yield from getattr(self, "w_" + w.pc)(s, i, w, f"W{i + 1}")
        if s.crashes_left and w.pc != "idle":
            yield Step("crash", f"W{i + 1} crashes before '{w.pc}'", self.put(s, i, Worker(), crashes_left=s.crashes_left - 1))

    def w_idle(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        for n in sorted(s.messages):
            child = s.children[n]
            if child.state in OVER:
                pc = "ack" if "redelivery-acks" in self.mutate else "get_child"
                yield Step("receive", f"{me} receives {{child {n}}}: it is {child.state}", self.put(s, i, Worker(pc, n)))
            elif s.takes_left:
                yield Step("receive", f"{me} receives {{child {n}}}", self.put(s, i, Worker("take", n, version=child.version)))

    def w_take(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        child = s.children[w.child]
        if child.version != w.version:
            yield Step("take refused", f"{me} takes child {w.child} -> 412", self.put(s, i, Worker()))
        elif s.takes_left:
            taken = child._replace(version=child.version + 1, epoch=child.epoch + 1)
            nw = w._replace(pc="commit", epoch=taken.epoch, version=taken.version, ballots=taken.epoch)
            if "join-before-done" in self.mutate:
                nw = nw._replace(pc="get_parent")
            yield Step("take", f"{me} takes child {w.child}, epoch {taken.epoch}",
                       self.put(self.put_child(s, w.child, taken), i, nw, takes_left=s.takes_left - 1))

    def w_commit(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        """The commit that ends the child, with its ballots."""
        child, n = s.children[w.child], w.child
        if child.version != w.version:
            nw = w._replace(pc="get_parent") if "join-from-memory" in self.mutate else Worker()
            yield Step("fenced", f"{me} ends child {n} -> 412: fenced", self.put(s, i, nw))
            return
        broken = ("fencing",) if w.epoch < child.epoch else ()
        pc = "ack_first" if "ack-before-join" in self.mutate else "ack" if "join-before-done" in self.mutate else "get_child"
        for state, left in (("done", 0), ("poisoned", 1)):
            if left <= s.poison_left:
                ended = child._replace(version=child.version + 1, state=state, ballots=w.ballots if state == "done" else 0)
                yield Step("child ends", f"{me} ends child {n}: {state}, ballots of epoch {ended.ballots}",
                           self.put(self.put_child(s, n, ended), i, w._replace(pc=pc), poison_left=s.poison_left - left), broken)

    def w_get_child(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        """Terminal, so it does not change any more."""
        child = s.children[w.child]
        yield Step("get child", f"{me} reads child {w.child}: {child.state}, ballots of epoch {child.ballots}",
                   self.put(s, i, w._replace(pc="get_parent", ballots=child.ballots)))

    def w_get_parent(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        joined = w.child in s.parent.bits and "counter" not in self.mutate
        over = s.parent.state in OVER and "join-revives" not in self.mutate
        pc = self.after_join() if joined or over else "join"
        said = "nothing to join" if joined or over else "will join"
        yield Step("get parent", f"{me} reads {s.parent}: {said}", self.put(s, i, w._replace(pc=pc, seen=s.parent)))

    def after_join(self) -> str:
        return "commit" if "join-before-done" in self.mutate else "stop" if "ack-before-join" in self.mutate else "ack"

    def joined(self, parent: Parent, child: int, ballots: int, ended: str) -> Parent:
        bits = parent.bits | {child}
        if "counter" in self.mutate and child in parent.bits:  # the next number instead of the child's own bit
            bits = parent.bits | set(sorted(set(range(self.a.shards)) - parent.bits)[:1])
        state = "done" if len(bits) == self.a.shards else parent.state
        state = "running" if parent.state == "cancelled" and state != "done" else state
        state = ended if ended in ("poisoned", "cancelled") and "join-revives" not in self.mutate else state
        return Parent(parent.version + 1, state, bits, tuple(sorted((*parent.tally, (child, ballots)))))

    def w_join(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        if s.parent.version != w.seen.version and "blind-join" not in self.mutate:
            yield Step("join refused", f"{me} joins child {w.child} -> 412", self.put(s, i, w._replace(pc="get_parent", seen=None)))
            return
        parent = self.joined(w.seen, w.child, w.ballots, s.children[w.child].state)
        pc = self.after_join()
        if "two-writes" in self.mutate:
            parent, pc = parent._replace(bits=w.seen.bits, state=w.seen.state), "set_bit"
        after = s._replace(parent=parent)
        yield Step("join", f"{me} joins child {w.child}: {parent}", self.put(after, i, w._replace(pc=pc, seen=parent)))
        if s.lost_left:
            yield Step("reply lost", f"{me} joins child {w.child}: {parent}, reply lost; resend -> 412",
                       self.put(after, i, w._replace(pc="get_parent", seen=None), lost_left=s.lost_left - 1))

    def w_set_bit(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        bits = s.parent.bits | {w.child}
        parent = s.parent._replace(version=s.parent.version + 1, bits=bits, state="done" if len(bits) == self.a.shards else s.parent.state)
        yield Step("set bit", f"{me} sets bit {w.child}", self.put(s._replace(parent=parent), i, w._replace(pc="ack")))

    def w_ack(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        yield Step("ack", f"{me} acks {{child {w.child}}}", self.put(s, i, Worker(), messages=s.messages - {w.child}))

    def w_ack_first(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        yield Step("ack", f"{me} acks {{child {w.child}}}",
                   self.put(s, i, w._replace(pc="get_child"), messages=s.messages - {w.child}))

    def w_stop(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        yield Step("stop", f"{me} is through with child {w.child}", self.put(s, i, Worker()))

    # Reconciler and canceller --------------------------------------------------------------------------------------

    def reconciler(self, s: State) -> Iterator[Step]:
        """Read and CAS in one step: what a refused CAS adds, the workers show."""
        for n, child in enumerate(s.children):
            if child.state in OVER and n not in s.parent.bits and s.parent.state not in OVER:
                parent = self.joined(s.parent, n, child.ballots, child.state)
                yield Step("join", f"Reconciler joins child {n}: {parent}", s._replace(parent=parent))
            if s.parent.state in ("cancelled", "poisoned") and child.state not in OVER and "cancel-parent-only" not in self.mutate:
                yield Step("cancel child", f"Reconciler cancels child {n} of a {s.parent.state} parent", self.cancel_child(s, n))

    def cancel_child(self, s: State, n: int) -> State:
        child = s.children[n]
        return self.put_child(s, n, child._replace(version=child.version + 1, epoch=child.epoch + 1, state="cancelled"))

    def canceller(self, s: State, k: int, c: Canceller) -> Iterator[Step]:
        def put(after: State, pc: str, seen: int = 0, **changes: object) -> State:
            return after._replace(cancellers=s.cancellers[:k] + (Canceller(pc, seen),) + s.cancellers[k + 1:], **changes)

        me, living = f"Cancel{k + 1}", [n for n, child in enumerate(s.children) if child.state not in OVER]
        if c.pc == "idle":
            over = s.parent.state in OVER
            yield Step("get parent", f"{me} reads {s.parent}", put(s, "stopped" if over else "cas", s.parent.version))
        elif c.pc == "cas" and s.parent.version != c.seen:
            yield Step("cancel refused", f"{me} cancels the parent -> 412", put(s, "idle"))
        elif c.pc == "cas":
            parent = s.parent._replace(version=s.parent.version + 1, state="cancelled")
            pc = "stopped" if "cancel-parent-only" in self.mutate else "children"
            yield Step("cancel", f"{me} cancels the parent", put(s._replace(parent=parent), pc))
        elif c.pc == "children" and living:
            yield Step("cancel child", f"{me} cancels child {living[0]}", put(self.cancel_child(s, living[0]), "children"))
        elif c.pc == "children":
            yield Step("cancel ends", f"{me} finds every child over", put(s, "stopped"))
        if s.crashes_left and c.pc not in ("idle", "stopped"):
            yield Step("crash", f"{me} crashes", put(s, "stopped", crashes_left=s.crashes_left - 1))

    # Invariants ----------------------------------------------------------------------------------------------------

    def broken(self, before: State, step: Step) -> tuple[str, ...]:
        s: State = step.state
        found = list(step.broken)
        if s.parent is not before.parent:
            if s.parent.tally != tuple((n, s.children[n].ballots) for n in sorted(s.parent.bits)):
                found.append("counted")
            if before.parent.state in OVER and s.parent != before.parent:
                found.append("final")
            everyone = len(s.parent.bits) == len(s.children) and all(child.state in OVER for child in s.children)
            if s.parent.state == "done" and not everyone:
                found.append("all")
        if any(was.state in OVER and was != now for was, now in zip(before.children, s.children)):
            found.append("final")
        return tuple(found)

    def broken_at_rest(self, s: State) -> tuple[str, ...]:
        living = [child for child in s.children if child.state not in OVER]
        if s.parent.state in ("cancelled", "poisoned"):
            return ("cancelled",) if living else ()
        return () if living or s.parent.state in OVER else ("ended",)

    def changes(self, before: State, step: Step) -> dict[str, object]:
        s, said = step.state, {}
        if s.parent != before.parent:
            said["parent"] = {"state": s.parent.state, "bits": sorted(s.parent.bits), "ballots": [list(t) for t in s.parent.tally]}
        if s.children != before.children:
            said["children"] = [child.state for child in s.children]
        return said
