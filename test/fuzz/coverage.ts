/** What of a script has run, by V8's own block coverage: no instrumentation, and the same code that ships. */
import { type Profiler, Session } from 'node:inspector';

interface Function {
  /** [characters of the function] 1: has run. */
  readonly ran: Uint8Array;
  /** Whether it was ever called. */
  called: boolean;
}

export class Coverage {
  readonly #session = new Session();
  readonly #path: string;
  readonly #functions = new Map<string, Function>();
  /** Characters of the script that have run; of nested functions each counts its own. */
  ranChars = 0;
  calledFunctions = 0;

  /** Must come before the script is loaded. `path` is the script's. */
  constructor(path: string) {
    this.#path = path;
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true, allowTriggeredUpdates: false });
  }

  /** Takes in what ran since the last time; true if some of it never ran before. */
  grew(): boolean {
    const before = this.ranChars;
    // Answers before it returns: the session is of this thread.
    this.#session.post('Profiler.takePreciseCoverage', (error, report) => {
      if (error !== null) throw error;
      for (const { url, functions } of report.result) {
        if (url.endsWith(this.#path)) for (const { ranges } of functions) this.#take(ranges);
      }
    });
    return this.ranChars > before;
  }

  #take(ranges: readonly Profiler.CoverageRange[]): void {
    const [whole] = ranges;
    if (whole === undefined || whole.count === 0) return;
    const key = `${whole.startOffset}-${whole.endOffset}`;
    let known = this.#functions.get(key);
    if (known === undefined) this.#functions.set(key, (known = { ran: new Uint8Array(whole.endOffset - whole.startOffset), called: false }));
    if (!known.called) this.calledFunctions++;
    known.called = true;
    // Ranges nest, and an inner one says it better: the first is the function, painted over by blocks that did not run.
    const now = new Uint8Array(known.ran.length);
    for (const { startOffset, endOffset, count } of ranges) now.fill(count > 0 ? 1 : 0, startOffset - whole.startOffset, endOffset - whole.startOffset);
    for (const [at, ran] of now.entries()) {
      if (ran === 1 && known.ran[at] === 0) {
        known.ran[at] = 1;
        this.ranChars++;
      }
    }
  }
}
