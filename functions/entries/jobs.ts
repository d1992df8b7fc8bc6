import { front } from '../front.ts';
import { jobEvents } from '../jobs/events.ts';
import { jobs } from '../jobs/jobs.ts';

/** Native jobs, their events and quotes. */
export default front({
  add: (registry) => {
    jobs(registry);
    jobEvents(registry);
  },
});
