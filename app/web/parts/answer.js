// The answer to what a component asks, as its inputs change.
import { useEffect, useLayoutEffect, useReducer, useRef } from "preact/hooks";

// Least time from one paced request to the next, and how many times as long as the first one took: a class that draws at
// the same time shares the server.
const PACE_MS = 200;
const PACE_FACTOR = 5;

/** One request in flight at a time. */
class Channel {
  #controller = null;
  #next = null;
  #pause = null;

  /**
   * Ask for newer inputs than before. live: they will change again soon, as while a stroke is drawn; then the request in
   * flight is awaited, so that there are answers meanwhile, and only the newest inputs wait for it. Otherwise it is aborted.
   * paced: live requests have pauses between them.
   */
  ask(request, settled, live, paced) {
    if ((this.#controller || this.#pause) && live) {
      this.#next = [request, settled, paced];
      return;
    }
    this.stop();
    this.#run(request, settled, live && paced);
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
    clearTimeout(this.#pause);
    this.#controller = this.#next = this.#pause = null;
  }

  async #run(request, settled, paced) {
    const controller = (this.#controller = new AbortController());
    const started = performance.now();
    let result;
    try {
      result = { answer: await request(controller.signal) };
    } catch (problem) {
      result = { problem };
    }
    if (controller !== this.#controller) return; // superseded
    this.#controller = null;
    settled(result);
    const took = performance.now() - started;
    if (paced) this.#pause = setTimeout(() => this.#runNext(), Math.max(PACE_MS, PACE_FACTOR * took) - took);
    else this.#runNext();
  }

  #runNext() {
    const next = this.#next;
    this.#next = this.#pause = null;
    if (next) this.#run(...next);
  }
}

/**
 * `{answer, problem, pending, retry}` of `request(signal)`, asked again whenever `inputs` change; null asks for nothing.
 * The answer before stays until the next one is there. live, paced: as of Channel.
 */
export function useAnswer(request, inputs, live = false, paced = false) {
  const channel = useRef(null);
  channel.current ??= new Channel();
  const [state, set] = useReducer((old, change) => ({ ...old, ...change }), { pending: false });
  const ask = () => {
    set({ pending: true });
    channel.current.ask(
      request,
      (result) => set({ pending: false, problem: undefined, ...result }),
      live,
      paced,
    );
  };
  // Layout effects do not wait for the next frame.
  useLayoutEffect(() => {
    if (inputs) return ask();
    channel.current.stop();
    set({ answer: undefined, problem: undefined, pending: false });
  }, [JSON.stringify(inputs, (_, value) => (value instanceof Blob ? identity(value) : value))]);
  useLayoutEffect(() => {
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
