// Whoever wants to know of changes; in the shape that `useSyncExternalStore` takes.

export interface Listeners {
  subscribe(listener: () => void): () => void;
  tell(): void;
}

export function listeners(): Listeners {
  const all = new Set<() => void>();
  return {
    subscribe(listener) {
      all.add(listener);
      return () => all.delete(listener);
    },
    tell() {
      for (const listener of [...all]) listener();
    },
  };
}
