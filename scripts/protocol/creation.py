"""The birth of a job: which objects a submit writes, in which order, and who finishes what a crash began.

  client      idem is there? -> PUT spec -> idem if absent -> PUT marker -> HEAD if absent -> send message -> answer the caller
  importer    HEAD is there? -> PUT objects and spec -> HEAD if absent, parked, with all that it names -> PUT marker -> answer
  worker      receives the message -> ends the job: done -> deletes the marker
  reconciler  for every marker: no HEAD -> creates it; not over and no message -> sends one; over -> deletes the marker
  eraser      HEAD becomes a tombstone, then the spec is deleted; the sweep deletes a spec put under a tombstone later

All clients come with one idempotency key; each draws a job id of its own. `--bodies 2` gives the second client another
body. A client that crashes is called again by its user, with the same key and a new id, while retries are left.
idem holds {id, spec, body}: the job, the name of its spec, the digest of the request as the caller wrote it.
The spec holds the id, so two calls with one body have two specs: only the body's digest can be compared. The marker
names the spec, so that the reconciler can create HEAD. Who finds idem puts no spec, and goes on with the job that it names; who loses
the race for the key deletes the spec that it has put and begins anew. `--order idem-first` writes idem before the spec: then not
even a crash between these leaves a spec behind (invariant `orphan`, which the order above keeps only where nobody crashes).
`--imports` adds callers who bring a job with a state of its own (a file, `createWith`) under the name that the first client draws. A job that
is there refuses them; whoever is refused sees to it that the job that is there has a marker, for an importer may have died before it put one.

Not modelled: the expiry of idem, several keys, what the job does between its birth and its end (commit.py, delivery.py).
"""
from __future__ import annotations

import argparse
from typing import Iterator, NamedTuple

from search import Step, add_arguments, by

INVARIANTS = {
    "one-job": "one key names two jobs",
    "acked": "a submit was acknowledged, but its job has no HEAD, or has another request's spec",
    "spec": "a HEAD names a spec that does not exist",
    "born-once": "a HEAD was written again from the beginning",
    "same-answer": "a retry with the same body was refused as another request",
    "found": "a job that is not over has neither a message nor a marker, nor a client that would go on",
    "anew": "a job that somebody brings with its state is begun from its spec",
    "orphan": "a spec, so a prompt, stays for ever that neither idem nor a living job names",
}
MUTATIONS = {
    "spec-last": "HEAD is created before the spec",
    "head-before-idem": "HEAD is created before idem",
    "idem-overwrite": "idem is written without a condition",
    "head-overwrite": "HEAD is written without a condition",
    "ack-early": "the caller is answered before HEAD exists",
    "no-body-check": "a key that exists is taken for the same request whatever its body",
    "compare-specs": "the spec's digest is compared instead of the body's",
    "marker-last": "the marker is written after HEAD",
    "marker-dropped": "the reconciler deletes a marker that has no HEAD",
    "import-marker-first": "an import puts the marker before HEAD, as a submit does",
    "import-head-first": "an import creates HEAD before what it names",
    "import-overwrites": "an import writes HEAD without a condition",
    "import-acks-early": "an import is acknowledged before the marker exists",
    "import-refused-leaves": "whoever is refused leaves the job that is there as it is, with a marker or without",
    "loser-keeps-spec": "who loses the race for the key leaves the spec that it has put",
    "erase-head": "erasure deletes HEAD instead of leaving a tombstone",
    "erase-idem": "erasure deletes idem too",
}
ORDER = ("seek", "spec", "idem", "marker", "head", "send", "answer")
IMPORT = ("look", "spec", "with", "marker", "answer")


class Idem(NamedTuple):
    job: int
    spec: tuple[int, int]  # (job, body): what its digest stands for
    body: int


class Client(NamedTuple):
    todo: tuple[str, ...]  # the steps still to do; empty: has ended
    body: int
    job: int = 0  # the id drawn, later the one idem names
    spec: tuple[int, int] = (0, 0)
    brings: bool = False  # an importer
    wrote: bool = False  # its HEAD, and the reply was lost: the nonce in it says so


class State(NamedTuple):
    clients: tuple[Client, ...]
    specs: frozenset = frozenset()
    idem: Idem | None = None
    heads: tuple[tuple[int, str, tuple[int, int]], ...] = ()  # (job, queued | done | erased, spec), sorted
    born: frozenset = frozenset()  # every job that ever had a HEAD
    messages: frozenset = frozenset()  # job ids
    markers: frozenset = frozenset()  # each is the name of a spec, which holds the job's id
    ids: int = 0  # drawn so far
    retries_left: int = 0
    crashes_left: int = 0
    lost_left: int = 0  # acknowledgements
    gone_left: int = 0  # messages that the queue may lose
    erases_left: int = 0
    brought: frozenset = frozenset()  # jobs that were born by an import
    gave_up: bool = False  # an importer crashed and is not called again: nobody waits for its job


class CreationModel:
    INVARIANTS = INVARIANTS

    def __init__(self, a: argparse.Namespace) -> None:
        self.a = a
        self.mutate: frozenset[str] = frozenset(a.mutate)
        self.check: frozenset[str] = frozenset(a.check or set(INVARIANTS) - ({"orphan"} if a.order == "spec-first" and a.crash else set()))
        order = list(ORDER)
        if a.order == "idem-first":
            order[1:3] = ["idem", "spec"]
        for rule, step, before in (("spec-last", "spec", "send"), ("head-before-idem", "head", "idem"),
                                   ("ack-early", "answer", "head"), ("marker-last", "marker", "send")):
            if rule in self.mutate:
                order.remove(step)
                order.insert(order.index(before), step)
        self.order = tuple(order)
        brings = list(IMPORT)
        for rule, step, before in (("import-marker-first", "marker", "with"), ("import-head-first", "with", "spec"),
                                   ("import-acks-early", "answer", "marker")):
            if rule in self.mutate:
                brings.remove(step)
                brings.insert(brings.index(before), step)
        self.imports = tuple(brings)

    @staticmethod
    def arguments(p: argparse.ArgumentParser) -> None:
        p.add_argument("model", choices=("create",))
        p.add_argument("--clients", type=int, default=2, help="calls with the key, at once")
        p.add_argument("--order", choices=("spec-first", "idem-first"), default="spec-first")
        p.add_argument("--bodies", type=int, choices=(1, 2), default=1, help="2: the last client has another body")
        p.add_argument("--retries", type=int, nargs="?", const=1, default=0, help="calls repeated by their user, at most")
        p.add_argument("--crash", type=int, nargs="?", const=1, default=0, help="client crashes, at most")
        p.add_argument("--lost-acks", type=int, nargs="?", const=1, default=0, help="acknowledgements lost, at most")
        p.add_argument("--lost-messages", type=int, nargs="?", const=1, default=0, help="messages lost, at most")
        p.add_argument("--erases", type=int, nargs="?", const=1, default=0, help="erasures, at most")
        p.add_argument("--imports", type=int, nargs="?", const=1, default=0, help="callers who bring the first job with its state")
        add_arguments(p, INVARIANTS, MUTATIONS)

    @staticmethod
    def refuse(p: argparse.ArgumentParser, a: argparse.Namespace) -> None:
        if a.clients + a.imports < 1:
            p.error("--clients or --imports must be at least 1")

    def bounds(self) -> str:
        return f"{self.a.clients} clients" + (f", {self.a.imports} imports" if self.a.imports else "")

    def initial(self) -> State:
        a = self.a
        bodies = [0] * (a.clients - 1) + [a.bodies - 1] if a.clients else []
        callers = [Client(("call",), body) for body in bodies] + [Client(("call",), 9, brings=True)] * a.imports
        return State(tuple(callers), retries_left=a.retries, crashes_left=a.crash,
                     lost_left=a.lost_acks, gone_left=a.lost_messages, erases_left=a.erases)

    def tidy(self, s: State) -> State:
        return s

    def steps(self, s: State) -> Iterator[Step]:
        for i, c in enumerate(s.clients):
            if c.todo:
                yield from by(f"C{i + 1}", self.client(s, i, c))
        for job, state, spec in s.heads:
            yield from by("Worker", self.worker(s, job, state, spec))
            if s.erases_left and state != "erased":
                yield Step("erase", f"Eraser erases job {job}", self.erased(s, job, spec), (), "Eraser")
            if state == "erased" and spec in s.specs:
                yield Step("sweep", f"Sweep deletes spec {spec} of the erased job", s._replace(specs=s.specs - {spec}), (), "Sweep")
        for spec in sorted(s.markers):
            yield from by("Reconciler", self.reconciler(s, spec))
        if s.gone_left:
            for job in sorted(s.messages):
                yield Step("message lost", f"Queue loses the message of job {job}",
                           s._replace(messages=s.messages - {job}, gone_left=s.gone_left - 1), (), "Queue")

    # What one client does ------------------------------------------------------------------------------------------

    def client(self, s: State, i: int, c: Client) -> Iterator[Step]:
        me, step = f"C{i + 1}", c.todo[0]
        if step == "call" and c.brings:
            nc = Client(self.imports, c.body, 1, (1, c.body), True)
            yield Step("call", f"{me} is called to import job 1", self.put(s, i, nc))
            return
        if step == "call":
            job = s.ids + 1
            nc = Client(self.order, c.body, job, (job, c.body))
            yield Step("call", f"{me} is called with body {c.body}, draws job {job}", self.put(s, i, nc, ids=job))
            return
        go = c._replace(todo=c.todo[1:])
        yield from getattr(self, "c_" + step)(s, i, c, go, me)
        if s.crashes_left:
            crashed = s._replace(crashes_left=s.crashes_left - 1)
            if s.retries_left:
                again = self.put(crashed, i, Client(("call",), c.body, brings=c.brings), retries_left=s.retries_left - 1)
                yield Step("crash, call again", f"{me} crashes before '{step}'; its user will call again", again)
            yield Step("crash", f"{me} crashes before '{step}', for good", self.put(
                crashed, i, Client((), c.body, brings=c.brings), gave_up=s.gave_up or (c.brings and "answer" in c.todo)))

    def put(self, s: State, i: int, c: Client, **changes: object) -> State:
        return s._replace(clients=s.clients[:i] + (c,) + s.clients[i + 1:], **changes)

    def c_spec(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        yield Step("put spec", f"{me} puts spec {c.spec}", self.put(s, i, go, specs=s.specs | {c.spec}))

    def agrees(self, s: State, c: Client) -> bool:
        same = s.idem.spec == c.spec if "compare-specs" in self.mutate else s.idem.body == c.body
        return same or "no-body-check" in self.mutate

    def other_body(self, s: State, i: int, c: Client, me: str) -> Step:
        broken = ("same-answer",) if s.idem.body == c.body else ()
        return Step("other body", f"{me} finds idem of another request: refused (422)", self.put(s, i, Client((), c.body)), broken)

    def c_seek(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        if s.idem is None:
            yield Step("no idem", f"{me} finds no idem", self.put(s, i, go))
        elif not self.agrees(s, c):
            yield self.other_body(s, i, c, me)
        else:
            nc = go._replace(job=s.idem.job, spec=s.idem.spec)
            state = self.state_of(s, nc.job)
            if state == "erased":
                yield Step("gone", f"{me} finds idem -> job {nc.job}, a tombstone: refused (410)", self.put(s, i, Client((), c.body)))
                return
            if state is not None and (nc.job, state, nc.spec) not in s.heads:  # brought by another
                yield Step("other job", f"{me} finds idem -> job {nc.job}, another's: refused (422)", self.put(s, i, Client((), c.body)))
                return
            known = ("idem",) if self.a.order == "idem-first" else ("spec", "idem")  # the spec was there before idem, or is put now
            rest = tuple(step for step in go.todo if step not in (known if state is None else ("spec", "idem", "marker", "head")))
            yield Step("idem found", f"{me} finds idem -> job {nc.job}: goes on with that job", self.put(s, i, nc._replace(todo=rest)))

    def c_drop(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        yield Step("delete spec", f"{me} deletes spec {c.spec}, begins anew", self.put(s, i, c._replace(todo=self.order), specs=s.specs - {c.spec}))

    def c_idem(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        if s.idem is None or "idem-overwrite" in self.mutate:
            after = s._replace(idem=Idem(c.job, c.spec, c.body))
            yield Step("put idem", f"{me} writes idem -> job {c.job}", self.put(after, i, go))
            if s.lost_left:
                yield Step("ack lost", f"{me} writes idem -> job {c.job}, reply lost; resend -> 412",
                           self.put(after, i, c, lost_left=s.lost_left - 1))
            return
        if s.idem.job == c.job and s.idem.spec == c.spec:  # written by itself: the reply was lost
            yield Step("idem mine", f"{me} finds idem -> job {c.job}, its own", self.put(s, i, go))
            return
        keeps = "loser-keeps-spec" in self.mutate or "spec" in c.todo  # not put yet
        yield Step("idem exists", f"{me} finds idem -> job {s.idem.job}: has lost", self.put(s, i, c._replace(todo=self.order if keeps else ("drop",))))

    def c_look(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        state = self.state_of(s, c.job)
        if state is None:
            yield Step("no head", f"{me} finds no HEAD of job {c.job}", self.put(s, i, go))
        else:
            yield self.refused(s, i, c, me, state)

    def refused(self, s: State, i: int, c: Client, me: str, state: str) -> Step:
        there = {spec for job, _, spec in s.heads if job == c.job}
        ended = Client((), c.body, brings=True)
        if state in ("done", "erased") or "import-refused-leaves" in self.mutate:
            return Step("there already", f"{me} finds job {c.job} {state}: refused", self.put(s, i, ended))
        return Step("there already", f"{me} finds job {c.job} {state}: refused, puts its marker", self.put(s, i, ended, markers=s.markers | there))

    def c_with(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        state = self.state_of(s, c.job)
        if state is not None and "import-overwrites" not in self.mutate:
            same = {spec for job, _, spec in s.heads if job == c.job} == {c.spec}
            cleaned = s if same else s._replace(specs=s.specs - {c.spec})
            if c.wrote and state != "erased":
                yield Step("head found mine", f"{me} finds HEAD of job {c.job} as it wrote it", self.put(s, i, go))
            else:
                yield self.refused(cleaned, i, c, me, state)
            return
        born, broken = self.born(s, c.job, c.spec)
        after = self.write(born, c.job, "parked", c.spec)._replace(brought=s.brought | {c.job})
        yield Step("create head", f"{me} creates HEAD of job {c.job}, parked", self.put(after, i, go), broken)
        if s.lost_left:
            yield Step("ack lost", f"{me} creates HEAD of job {c.job}, parked, reply lost; resend -> 412",
                       self.put(after, i, c._replace(wrote=True), lost_left=s.lost_left - 1), broken)

    def c_marker(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        yield Step("put marker", f"{me} puts the marker of job {c.job}", self.put(s, i, go, markers=s.markers | {c.spec}))

    def c_head(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        state = self.state_of(s, c.job)
        if state is None or "head-overwrite" in self.mutate:
            after, broken = self.born(s, c.job, c.spec)
            yield Step("create head", f"{me} creates HEAD of job {c.job}", self.put(after, i, go), broken)
            if s.lost_left:
                yield Step("ack lost", f"{me} creates HEAD of job {c.job}, reply lost; resend -> 412",
                           self.put(after, i, c, lost_left=s.lost_left - 1), broken)
        elif state == "erased":
            yield Step("gone", f"{me} creates HEAD if absent -> 412, a tombstone: refused (410)", self.put(s, i, Client((), c.body)))
        elif self.a.imports and (c.job, state, c.spec) not in s.heads:  # brought by another, under a name that the caller chose too
            yield Step("other job", f"{me} creates HEAD if absent -> 412, another's: refused (409), deletes its spec",
                       self.put(s._replace(specs=s.specs - {c.spec}), i, Client((), c.body)))
        else:
            yield Step("head exists", f"{me} creates HEAD if absent -> 412, {state}: fine", self.put(s, i, go))

    def c_send(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        yield Step("send", f"{me} sends the message of job {c.job}", self.put(s, i, go, messages=s.messages | {c.job}))

    def c_answer(self, s: State, i: int, c: Client, go: Client, me: str) -> Iterator[Step]:
        mine = [head for head in s.heads if head[0] == c.job and head[2][1] == c.body]
        yield Step("answer", f"{me} acknowledges job {c.job}", self.put(s, i, go), () if mine else ("acked",))

    # What the others do --------------------------------------------------------------------------------------------

    def state_of(self, s: State, job: int) -> str | None:
        return next((state for j, state, _ in s.heads if j == job), None)

    def write(self, s: State, job: int, state: str, spec: tuple[int, int]) -> State:
        others = [head for head in s.heads if head[0] != job]
        return s._replace(heads=tuple(sorted([*others, (job, state, spec)])))

    def born(self, s: State, job: int, spec: tuple[int, int]) -> tuple[State, tuple[str, ...]]:
        after = self.write(s, job, "queued", spec)._replace(born=s.born | {job})
        return after, ("born-once",) if job in s.born else ()

    def worker(self, s: State, job: int, state: str, spec: tuple[int, int]) -> Iterator[Step]:
        if job not in s.messages:
            return
        if state in ("queued", "parked"):  # the message is acknowledged only once the job is over
            yield Step("run", f"Worker runs job {job}: done", self.write(s, job, "done", spec))
        else:
            yield Step("ack", f"Worker finds job {job} {state}: acks the message, deletes the marker",
                       s._replace(messages=s.messages - {job}, markers=s.markers - {spec}))

    def erased(self, s: State, job: int, spec: tuple[int, int]) -> State:
        after = self.write(s, job, "erased", spec)
        if "erase-head" in self.mutate:
            after = s._replace(heads=tuple(head for head in s.heads if head[0] != job))
        idem = None if "erase-idem" in self.mutate else s.idem
        return after._replace(erases_left=s.erases_left - 1, idem=idem, specs=s.specs - {spec})

    def reconciler(self, s: State, spec: tuple[int, int]) -> Iterator[Step]:
        job = spec[0]
        state, without = self.state_of(s, job), s._replace(markers=s.markers - {spec})
        if state in ("done", "erased"):
            yield Step("marker deleted", f"Reconciler finds job {job} {state}: deletes its marker", without)
        elif state in ("queued", "parked"):
            if job not in s.messages:
                yield Step("message sent again", f"Reconciler sends the message of job {job}", s._replace(messages=s.messages | {job}))
        elif "marker-dropped" in self.mutate:
            yield Step("marker deleted", f"Reconciler finds no HEAD of job {job}: deletes its marker", without)
        elif self.a.imports and spec not in s.specs:
            return  # its spec is gone: of one that lost, or that was erased
        else:
            after, broken = self.born(s, job, spec)
            if spec[1] == 9:
                broken += ("anew",)
            yield Step("head finished", f"Reconciler creates the HEAD of job {job} that its client began", after, broken)

    def broken(self, before: State, step: Step) -> tuple[str, ...]:
        s: State = step.state
        found = list(step.broken)
        if len(s.born - s.brought) > 1:
            found.append("one-job")
        for job, state, spec in s.heads:
            if state != "erased" and spec not in s.specs:
                found.append("spec")
            alone = job not in s.messages and not any(marker[0] == job for marker in s.markers) and not self.at_work(s, job)
            if alone and (state == "queued" or (state == "parked" and not s.gave_up)):
                found.append("found")
        return tuple(found)

    def broken_at_rest(self, s: State) -> tuple[str, ...]:
        named = {spec for _, state, spec in s.heads if state != "erased"} | ({s.idem.spec} if s.idem else set())
        stuck = any(state == "queued" or (state == "parked" and not s.gave_up) for _, state, _ in s.heads)
        return (("found",) if stuck else ()) + (() if s.specs <= named else ("orphan",))

    def at_work(self, s: State, job: int) -> bool:
        return any(c.todo and (c.job == job or (c.brings and job == 1)) for c in s.clients)

    def changes(self, before: State, step: Step) -> dict[str, object]:
        if before.heads == step.state.heads:
            return {}
        return {"heads": {str(job): state for job, state, _ in step.state.heads}}
