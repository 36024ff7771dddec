// The answer to what a component asks, as its inputs change.
import { useEffect, useReducer, useRef } from "preact/hooks";

/** One request in flight at a time. */
class Channel {
  #controller = null;
  #next = null;

  /**
   * Ask for newer inputs than before. live: they will change again soon, as while a stroke is drawn; then the request in
   * flight is awaited, so that there are answers meanwhile, and only the newest inputs wait for it. Otherwise it is aborted.
   */
  ask(request, settled, live) {
    if (this.#controller && live) {
      this.#next = [request, settled];
      return;
    }
    this.stop();
    this.#run(request, settled);
  }

  /** Let the newest inputs, if they wait, wait no longer. */
  hurry() {
    const next = this.#next;
    if (!next) return;
    this.stop();
    this.#run(...next);
  }

  stop() {
    this.#controller?.abort();
    this.#controller = this.#next = null;
  }

  async #run(request, settled) {
    const controller = (this.#controller = new AbortController());
    let result;
    try {
      result = { answer: await request(controller.signal) };
    } catch (problem) {
      result = { problem };
    }
    if (controller !== this.#controller) return; // superseded
    this.#controller = null;
    settled(result);
    if (this.#next) {
      const next = this.#next;
      this.#next = null;
      this.#run(...next);
    }
  }
}

/**
 * `{answer, problem, pending, retry}` of `request(signal)`, asked again whenever `inputs` change; null asks for nothing.
 * The answer before stays until the next one is there. live: as of Channel.
 */
export function useAnswer(request, inputs, live = false) {
  const channel = useRef(null);
  channel.current ??= new Channel();
  const [state, set] = useReducer((old, change) => ({ ...old, ...change }), { pending: false });
  const ask = () => {
    set({ pending: true });
    channel.current.ask(
      request,
      (result) => set({ pending: false, problem: undefined, ...result }),
      live,
    );
  };
  useEffect(() => {
    if (inputs) return ask();
    channel.current.stop();
    set({ answer: undefined, problem: undefined, pending: false });
  }, [JSON.stringify(inputs, (_, value) => (value instanceof Blob ? identity(value) : value))]);
  useEffect(() => {
    if (!live) channel.current.hurry();
  }, [live]);
  useEffect(() => () => channel.current.stop(), []);
  return { ...state, retry: ask };
}

/**
 * `inTurn(request)` is the request after all earlier ones of it have ended, unless it is aborted before: a component that
 * asks one operation for several things has one request in flight.
 */
export function useTurns() {
  const last = useRef(Promise.resolve());
  return (request) => (signal) => {
    const own = last.current.then(() => {
      signal.throwIfAborted();
      return request(signal);
    });
    last.current = own.catch(() => {});
    return own;
  };
}

/** The value, or while `live` the one from before. */
export function useSettled(value, live) {
  const settled = useRef(value);
  if (!live) settled.current = value;
  return settled.current;
}

const identities = new WeakMap();
let count = 0;

function identity(blob) {
  if (!identities.has(blob)) identities.set(blob, ++count);
  return identities.get(blob);
}
