// The state of the page is the hash of its address: `#/room?name=value`. A copied address restores all of it.
import { useEffect, useState } from "preact/hooks";

const listeners = new Set();
const latest = {}; // by room, so that its tab leads back to where one was

function parse() {
  const [, room = "", query = ""] = /^#\/([\w-]*)\??(.*)$/.exec(location.hash) ?? [];
  return { room, params: Object.fromEntries(new URLSearchParams(query)) };
}

/** The address of a state. Values that are undefined, null or empty are left out. */
export function link(room, params = latest[room] ?? {}) {
  const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString();
  return `#/${room}${query && `?${query}`}`;
}

let current = parse();

function changed() {
  current = parse();
  latest[current.room] = current.params;
  listeners.forEach((listener) => listener(current));
}
changed();
addEventListener("hashchange", changed);

/** The current room and its parameters, which are strings. */
export function useLocation() {
  const [state, setState] = useState(current);
  useEffect(() => {
    listeners.add(setState);
    setState(current);
    return () => listeners.delete(setState);
  }, []);
  return state;
}

/** Change parameters of the current room, without an entry in the history of the browser. */
export function update(changes) {
  history.replaceState(null, "", link(current.room, { ...current.params, ...changes }));
  changed();
}

/** Name the room that is shown in an address that asks for none, or for one that is not there. */
export function settle(asked, shown) {
  const { room, params } = parse(); // not `asked` if the visitor has left since the room was rendered
  if (room !== asked || room === shown) return;
  history.replaceState(null, "", link(shown, params));
  changed();
}
