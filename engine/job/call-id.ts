/** What a call is known by to whoever answers it. Imports nothing: the HTTP edge shows it, and a conversation goes on from it. */

/** A function of the job, so that every instance gives the same. `index`: of the chain's calls. */
export function callIdOf(job: string, chain: number, index: number): string {
  return `call_${job}_${chain}_${index}`;
}
