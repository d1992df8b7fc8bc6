/** What every check of this folder is made of: things that hold or do not, and a last line `N passed, N failed`. */

/** @example const { check, skip, end } = checks(); check('it holds', 1 + 1 === 2); end(); */
export function checks() {
  let passed = 0;
  let failed = 0;
  const say = (line) => void process.stdout.write(`${line}\n`);
  const made = {
    /** @param holds or a function that throws if it does not; its promise is waited for. @returns whether it held. */
    async check(name, holds, detail = '') {
      let why = detail;
      let does = holds;
      if (typeof holds === 'function') {
        try {
          does = (await holds()) !== false;
        } catch (error) {
          does = false;
          why = error.message;
        }
      }
      if (does) passed++;
      else failed++;
      say(`${does ? 'ok  ' : 'FAIL'} ${name}${does || why === '' ? '' : `: ${why}`}`);
      return does;
    },
    /** Something that this machine lacks. */
    skip: (name, why) => say(`skipped: ${name}: ${why}`),
    /** The last line; of a part of a check, which counts as one of the whole, no such line. */
    end({ isPart = false } = {}) {
      if (!isPart) say(`${passed} passed, ${failed} failed`);
      process.exitCode = failed === 0 ? 0 : 1;
    },
    /** All of it: what `work` throws is a check that failed, and the last line comes whatever happens. */
    async run(work, options) {
      try {
        await work();
      } catch (error) {
        await made.check('the check itself', false, error.stack);
      }
      made.end(options);
    },
  };
  return made;
}

/** @throws Error unless they are the same as JSON. */
export function same(found, wanted, what = 'they differ') {
  const [a, b] = [found, wanted].map((value) => JSON.stringify(value));
  if (a !== b) throw new Error(`${what}: ${a} is not ${b}`);
}
