/** An adapter with some of its methods replaced: what a test wants to see, or wants to go wrong. */
export function through<T extends object>(adapter: T, changes: Partial<T>): T {
  return new Proxy(adapter, {
    get: (of, key) => {
      const changed: unknown = Reflect.get(changes, key);
      const value: unknown = changed ?? Reflect.get(of, key, of);
      return changed === undefined && typeof value === 'function' ? value.bind(of) : value;
    },
  });
}
