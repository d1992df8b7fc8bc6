"""The queue of one job: messages {slice}, delivered at least once and in any order, to several workers.

  worker      receive {slice} -> GET HEAD -> over: delete the marker, ack | an older slice: ack | CAS HEAD epoch+1 (take)
              -> CAS HEAD token+1 (each a step of work) -> end of a slice: CAS HEAD parked, slice+1 -> send {slice+1} -> ack
                                                        -> end of the job: CAS HEAD done -> delete the marker -> ack
              -> or the worker cannot run it: CAS HEAD parked, strike taken back, lets the message go
  reconciler  while the marker stands and the job is not over: sends {slice} as HEAD has it

A message stays in the queue until a worker acks it; meanwhile any worker may receive it (visibility timeouts are hints). An ack
removes one copy; `--lost-acks` of it leave the copy there. A job has `--slices` slices of `--tokens` tokens each. A take that
finds `--strikes` takes in a row without a token poisons the job instead. A worker that is refused has been fenced: it lets go.
Between the CAS and the send a parked job's next message does not exist: whoever then acks a second copy of the old one
leaves nothing to find should the owner crash. The reconciler mends it; so does `--on-stale send`.
`--no-reconciler` shows what the order of steps is worth by itself, `--lost-messages` what only the reconciler saves.

Bills are part of HEAD (of the manifest it names): `billed` counts what was charged, and must equal the tokens committed.
The lost reply of a commit (writeNonce) and the objects behind HEAD are the matter of commit.py.
"""
from __future__ import annotations

import argparse
from typing import Iterator, NamedTuple

from search import add_arguments, by, Step, Switches

INVARIANTS = {
    "found": "a job that is not over has no message, no marker that the reconciler reads, and no worker going on",
    "once": "a token was billed twice, or billed without being committed",
    "final": "a job in a terminal state changed",
    "strikes": "a job was taken more often in a row without a token than it may",
    "fencing": "a commit by an older epoch succeeded after a take",
    "drained": "the job is over, nothing can happen any more, and a message or the marker is still there",
}
MUTATIONS = {
    "ack-before-send": "the message is acked before the continuation is sent",
    "send-before-commit": "the continuation is sent before HEAD is parked, and a worker acks a slice newer than HEAD's",
    "ack-on-receive": "the message is acked as soon as HEAD is taken",
    "ack-running": "a message of the running slice is taken for a duplicate and acked",
    "fenced-acks": "a fenced worker acks its message",
    "ack-stale-never": "messages of older slices are let go instead of acked, and runs on them are started",
    "marker-first": "the marker is deleted before the commit that ends the job",
    "bill-outside": "a token is billed when it is computed, outside HEAD",
    "no-strikes": "takes are not counted",
    "refused-acks": "a worker that gives the job back acks its message",
    "blind-commit": "a commit is written without a condition",
}


class Head(NamedTuple):
    version: int = 0
    epoch: int = 0
    state: str = "queued"  # running parked done poisoned
    slice: int = 0
    tokens: int = 0
    strikes: int = 0  # takes in a row without a token

    def over(self) -> bool:
        return self.state in ("done", "poisoned")

    def __str__(self) -> str:
        return f"HEAD v{self.version} epoch {self.epoch} {self.state} slice {self.slice} tokens {self.tokens}"


class Worker(NamedTuple):
    pc: str = "idle"
    message: int = 0  # the slice of the message held
    seen: Head | None = None


class State(NamedTuple):
    head: Head
    workers: tuple[Worker, ...]
    messages: tuple[int, ...] = (0,)  # a multiset of slices, sorted
    marker: bool = True
    billed: int = 0
    lost_left: int = 0
    gone_left: int = 0
    again_left: int = 0
    crashes_left: int = 0
    refusals_left: int = 0


class DeliveryModel(Switches):
    INVARIANTS = INVARIANTS

    @staticmethod
    def arguments(p: argparse.ArgumentParser) -> None:
        p.add_argument("model", choices=("deliver",))
        p.add_argument("--workers", type=int, default=2)
        p.add_argument("--slices", type=int, default=2)
        p.add_argument("--tokens", type=int, default=1, help="tokens a slice")
        p.add_argument("--strikes", type=int, default=3, help="takes in a row without a token, at most; then poisoned")
        p.add_argument("--duplicates", type=int, nargs="?", const=1, default=0, help="messages doubled by the queue, at most")
        p.add_argument("--lost-acks", type=int, nargs="?", const=1, default=0, help="acks of messages without effect, at most")
        p.add_argument("--lost-messages", type=int, nargs="?", const=1, default=0, help="messages lost by the queue, at most")
        p.add_argument("--crash", type=int, nargs="?", const=1, default=0, help="worker crashes, at most")
        p.add_argument("--refusals", type=int, nargs="?", const=1, default=0, help="takes that are given back without a token, at most")
        p.add_argument("--on-stale", choices=("ack", "send"), default="ack",
                       help="a message of an older slice: ack it, or, while HEAD is parked, send {slice} of HEAD first")
        p.add_argument("--no-reconciler", action="store_true")
        add_arguments(p, INVARIANTS, MUTATIONS)

    @staticmethod
    def refuse(p: argparse.ArgumentParser, a: argparse.Namespace) -> None:
        if min(a.workers, a.slices, a.tokens, a.strikes) < 1:
            p.error("--workers, --slices, --tokens and --strikes must be at least 1")

    def bounds(self) -> str:
        return f"{self.a.workers}w×{self.a.slices}s×{self.a.tokens}t"

    def initial(self) -> State:
        a = self.a
        return State(Head(), (Worker(),) * a.workers, lost_left=a.lost_acks, gone_left=a.lost_messages,
                     again_left=a.duplicates, crashes_left=a.crash, refusals_left=a.refusals)

    def tidy(self, s: State) -> State:
        return s

    def steps(self, s: State) -> Iterator[Step]:
        for i, w in enumerate(s.workers):
            if i and w == s.workers[i - 1]:
                continue  # alike: letting the first one go is enough
            yield from by(f"W{i + 1}", self.worker(s, i, w))
        for message in sorted(set(s.messages)):
            if s.again_left:
                yield Step("duplicate", f"Queue doubles {{slice {message}}}",
                           s._replace(messages=self.with_one(s, message), again_left=s.again_left - 1), (), "Queue")
            if s.gone_left:
                yield Step("message lost", f"Queue loses {{slice {message}}}",
                           s._replace(messages=self.less_one(s, message), gone_left=s.gone_left - 1), (), "Queue")
        if not self.a.no_reconciler and s.marker:
            if s.head.over():
                yield Step("marker deleted", "Reconciler finds the job over: deletes the marker", s._replace(marker=False), (), "Reconciler")
            elif not s.messages:  # sending once more beside others is what --duplicates does
                yield Step("message sent again", f"Reconciler sends {{slice {s.head.slice}}}",
                           s._replace(messages=(s.head.slice,)), (), "Reconciler")

    def with_one(self, s: State, message: int) -> tuple[int, ...]:
        return tuple(sorted((*s.messages, message)))

    def less_one(self, s: State, message: int) -> tuple[int, ...]:
        at = s.messages.index(message) if message in s.messages else len(s.messages)
        return s.messages[:at] + s.messages[at + 1:]

    def put(self, s: State, i: int, w: Worker, **changes: object) -> State:
        return s._replace(workers=s.workers[:i] + (w,) + s.workers[i + 1:], **changes)

    # Worker --------------------------------------------------------------------------------------------------------

    def worker(self, s: State, i: int, w: Worker) -> Iterator[Step]:
        yield from getattr(self, "w_" + w.pc)(s, i, w, f"W{i + 1}")
        if s.crashes_left and w.pc != "idle":
            yield Step("crash", f"W{i + 1} crashes before '{w.pc}'", self.put(s, i, Worker(), crashes_left=s.crashes_left - 1))

    def w_idle(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        for message in sorted(set(s.messages)):
            yield Step("receive", f"{me} receives {{slice {message}}}", self.put(s, i, Worker("look", message)))

    def w_look(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        head, held = s.head, w._replace(seen=s.head)
        newer = "send-before-commit" in self.mutate and w.message > head.slice
        if head.over():
            yield Step("over", f"{me} reads {head}: over", self.put(s, i, held._replace(pc="unmark")))
        elif (w.message < head.slice and "ack-stale-never" not in self.mutate) or newer:
            pc = "send" if self.a.on_stale == "send" and head.state == "parked" else "ack"
            yield Step("stale", f"{me} reads {head}: not this slice", self.put(s, i, held._replace(pc=pc)))
        elif head.state == "running" and "ack-running" in self.mutate:
            yield Step("stale", f"{me} reads {head}: running, takes its message for a duplicate", self.put(s, i, held._replace(pc="ack")))
        else:  # a running head may be taken any time: its owner may have stalled. Letting go and waiting is no step
            yield Step("get head", f"{me} reads {head}", self.put(s, i, held._replace(pc="take")))

    def w_take(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        if s.head.version != w.seen.version:
            yield self.let_go("take refused", f"{me} CAS epoch -> 412, lets the message go", s, i)
            return
        count = "no-strikes" not in self.mutate
        if count and s.head.strikes >= self.a.strikes:
            head = s.head._replace(version=s.head.version + 1, epoch=s.head.epoch + 1, state="poisoned")
            yield Step("poison", f"{me} poisons the job: {head}", self.put(s, i, w._replace(pc="unmark", seen=head), head=head))
            return
        strikes = s.head.strikes + 1 if count or s.head.strikes <= self.a.strikes else s.head.strikes
        head = s.head._replace(version=s.head.version + 1, epoch=s.head.epoch + 1, state="running", strikes=strikes)
        early = "ack-on-receive" in self.mutate
        after = self.put(s, i, w._replace(pc="compute", seen=head), head=head, messages=self.less_one(s, w.message) if early else s.messages)
        yield Step("take", f"{me} takes the job: {head}", after, ("strikes",) if strikes > self.a.strikes else ())

    def w_compute(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        """The step of work; what follows is its commit."""
        last = w.seen.tokens + 1 == self.a.slices * self.a.tokens
        ends = (w.seen.tokens + 1) % self.a.tokens == 0
        pc = "commit"
        if last and "marker-first" in self.mutate:
            pc = "unmark_first"
        elif ends and not last and "send-before-commit" in self.mutate:
            pc = "send_first"
        if s.refusals_left and w.seen.state == "running":
            yield self.give_back(s._replace(refusals_left=s.refusals_left - 1), i, w, me)
        yield Step("compute", f"{me} computes token {w.seen.tokens}",
                   self.put(s, i, w._replace(pc=pc), billed=s.billed + ("bill-outside" in self.mutate)))

    def give_back(self, s: State, i: int, w: Worker, me: str) -> Step:
        if s.head.version != w.seen.version:
            return self.let_go("fenced", f"{me} gives the job back -> 412: fenced, lets the message go", s, i)
        head = w.seen._replace(version=w.seen.version + 1, state="parked", strikes=max(0, w.seen.strikes - 1))
        after = w._replace(pc="ack", seen=head) if "refused-acks" in self.mutate else Worker()
        return Step("give back", f"{me} gives the job back: {head}", self.put(s, i, after, head=head))

    def w_unmark_first(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        yield Step("delete marker", f"{me} deletes the marker", self.put(s, i, w._replace(pc="commit"), marker=False))

    def w_send_first(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        following = w.seen.slice + 1
        yield Step("send", f"{me} sends {{slice {following}}}", self.put(s, i, w._replace(pc="commit"), messages=self.with_one(s, following)))

    def w_commit(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        if s.head.version != w.seen.version and "blind-commit" not in self.mutate:
            if "fenced-acks" in self.mutate:
                yield Step("fenced", f"{me} commits -> 412: fenced, acks all the same", self.put(s, i, w._replace(pc="ack")))
            else:
                yield self.let_go("fenced", f"{me} commits -> 412: fenced, writes and acks nothing", s, i)
            return
        tokens = w.seen.tokens + 1
        last, ends = tokens == self.a.slices * self.a.tokens, tokens % self.a.tokens == 0
        head = w.seen._replace(version=w.seen.version + 1, tokens=tokens, strikes=0)
        following = "compute"
        if last:
            head, following = head._replace(state="done"), "unmark"
        elif ends:
            head, following = head._replace(state="parked", slice=head.slice + 1), "send"
            if "send-before-commit" in self.mutate:
                following = "ack"
            elif "ack-before-send" in self.mutate:
                following = "ack_first"
        billed = s.billed + ("bill-outside" not in self.mutate)
        yield Step("commit", f"{me} commits {head}", self.put(s, i, w._replace(pc=following, seen=head), head=head, billed=billed),
                   ("fencing",) if head.epoch < s.head.epoch else ())

    def w_send(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        following = w.seen.slice
        after = Worker() if "ack-before-send" in self.mutate else w._replace(pc="ack")
        yield Step("send", f"{me} sends {{slice {following}}}", self.put(s, i, after, messages=self.with_one(s, following)))

    def w_unmark(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        yield Step("delete marker", f"{me} deletes the marker", self.put(s, i, w._replace(pc="ack"), marker=False))

    def w_ack(self, s: State, i: int, w: Worker, me: str) -> Iterator[Step]:
        after = w._replace(pc="send") if w.pc == "ack_first" else Worker()
        yield Step("ack", f"{me} acks {{slice {w.message}}}", self.put(s, i, after, messages=self.less_one(s, w.message)))
        if s.lost_left:
            yield Step("ack lost", f"{me} acks {{slice {w.message}}}, without effect", self.put(s, i, after, lost_left=s.lost_left - 1))

    w_ack_first = w_ack

    def let_go(self, event: str, text: str, s: State, i: int) -> Step:
        return Step(event, text, self.put(s, i, Worker()))

    # Invariants ----------------------------------------------------------------------------------------------------

    def broken(self, before: State, step: Step) -> tuple[str, ...]:
        s: State = step.state
        found = list(step.broken)
        if not s.head.over() and not s.messages and (self.a.no_reconciler or not s.marker):
            if not any(w.seen and w.seen.version == s.head.version and w.pc != "ack" for w in s.workers):
                found.append("found")
        if before.head.over() and s.head != before.head:
            found.append("final")
        waiting = sum(w.pc in ("commit", "send_first", "unmark_first") and w.seen.version == s.head.version for w in s.workers)
        if s.billed != s.head.tokens + ("bill-outside" in self.mutate) * min(waiting, 1):
            found.append("once")
        return tuple(found)

    def broken_at_rest(self, s: State) -> tuple[str, ...]:
        if not s.head.over():
            return ("found",)
        return ("drained",) if s.messages or (s.marker and not self.a.no_reconciler) else ()

    def changes(self, before: State, step: Step) -> dict[str, object]:
        said: dict[str, object] = {}
        if step.state.head != before.head:
            said["head"] = step.state.head._asdict()
        if step.state.messages != before.messages:
            said["messages"] = list(step.state.messages)
        return said
