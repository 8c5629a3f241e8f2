import { useCallback, useEffect, useRef, useState } from "react";

export interface Loaded<T> {
  data: T | undefined;
  error: unknown;
  loading: boolean;
  reload: () => void;
}

/** Load something whenever `key` changes or `reload` is called; an answer that comes too late is dropped. */
export function useAsync<T>(key: string, load: () => Promise<T>): Loaded<T> {
  const [state, setState] = useState<{ key: string; data: T | undefined; error: unknown; loading: boolean }>({
    key,
    data: undefined,
    error: undefined,
    loading: true,
  });
  const [round, setRound] = useState(0);
  const latest = useRef(load);
  latest.current = load;

  // biome-ignore lint/correctness/useExhaustiveDependencies: `round` is what `reload` changes.
  useEffect(() => {
    let current = true;
    setState((before) =>
      before.key === key
        ? { ...before, loading: true }
        : { key, data: undefined, error: undefined, loading: true },
    );
    latest.current().then(
      (data) => current && setState({ key, data, error: undefined, loading: false }),
      (error: unknown) => current && setState((before) => ({ ...before, error, loading: false })),
    );
    return () => {
      current = false;
    };
  }, [key, round]);

  const reload = useCallback(() => setRound((before) => before + 1), []);
  const fresh = state.key === key;
  return {
    data: fresh ? state.data : undefined,
    error: fresh ? state.error : undefined,
    loading: state.loading,
    reload,
  };
}

/** Run an action with its "busy" and "error" shown: `run()` never throws. */
export function useAction<A extends unknown[]>(action: (...args: A) => Promise<void>) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(undefined);
  const run = (...args: A): void => {
    setBusy(true);
    setError(undefined);
    action(...args)
      .catch((caught: unknown) => setError(caught))
      .finally(() => setBusy(false));
  };
  return { busy, error, run, clear: () => setError(undefined) };
}
