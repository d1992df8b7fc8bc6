/** Milliseconds that this process has worked: a machine that is busy elsewhere adds none. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}
