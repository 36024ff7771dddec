// The area to draw on, with mouse, pen, finger or keyboard.
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { UNIT, extend, paint } from "./drawing.js";
import { html } from "./html.js";

const WIDTH = 20; // of a stroke, in 255ths of the side
const STEP = 1 / 24; // of the pen moved by an arrow key
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * strokes, picture: what is drawn so far, the stroke that is being drawn included. onLive(strokes): while a stroke is drawn. onDone(strokes): after it.
 */
export function Pad({ strokes, picture, onLive, onDone, label = "Drawing area", children }) {
  const help = useId();
  const element = useRef(null);
  const stroke = useRef(null);
  const [pen, setPen] = useState(null); // of the keyboard: {x, y, down}

  useLayoutEffect(() => {
    const canvas = element.current;
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== side || canvas.height !== side) Object.assign(canvas, { width: side, height: side });
    const context = canvas.getContext("2d");
    paint(context, strokes, picture);
    if (pen) mark(context, pen);
  });

  function place(event) {
    const box = element.current.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  const drawn = () => [...stroke.current.before, [...stroke.current.points]];

  function finish() {
    const strokes = drawn();
    stroke.current = null;
    onDone(strokes);
  }

  function start(event) {
    if (stroke.current || event.button !== 0) return;
    event.preventDefault();
    element.current.focus({ preventScroll: true });
    element.current.setPointerCapture(event.pointerId);
    const pressure = event.pointerType === "pen" && event.pressure ? 0.5 + event.pressure : 1;
    stroke.current = { id: event.pointerId, before: strokes, points: [Math.round(WIDTH * pressure)] };
    setPen(null);
    extend(stroke.current.points, ...place(event));
    onLive(drawn());
  }

  function move(event) {
    if (stroke.current?.id !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    const added = (events.length ? events : [event]).map((each) => extend(stroke.current.points, ...place(each)));
    if (added.some(Boolean)) onLive(drawn());
  }

  function end(event) {
    if (stroke.current?.id !== event.pointerId) return;
    finish();
  }

  function press(event) {
    const arrow = ARROWS[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(arrow || event.key === " ")) return;
    event.preventDefault();
    const { x, y, down } = pen ?? { x: 0.5, y: 0.25, down: false };
    if (!arrow) {
      setPen({ x, y, down: !down });
      if (down) return finish();
      stroke.current = { before: strokes, points: [WIDTH] };
      extend(stroke.current.points, x, y);
      onLive(drawn());
      return;
    }
    const step = STEP / (event.shiftKey ? 4 : 1);
    const [newX, newY] = [x + arrow[0] * step, y + arrow[1] * step].map((value) => Math.min(Math.max(value, 0), 1));
    setPen({ x: newX, y: newY, down });
    if (down && extend(stroke.current.points, newX, newY)) onLive(drawn());
  }

  function leave() {
    if (pen?.down) finish();
    setPen(null);
  }

  return html`<div class="pad">
    <canvas ref=${element} tabindex="0" role="application" aria-label=${label} aria-describedby=${help}
      onPointerDown=${start} onPointerMove=${move} onPointerUp=${end} onPointerCancel=${end} onKeyDown=${press} onBlur=${leave}></canvas>
    ${children}
    <p id=${help} class="spoken">Arrow keys move the pen, space puts it down and lifts it, shift makes smaller steps.</p>
  </div>`;
}

/** Show where the pen of the keyboard is. */
function mark(context, { x, y, down }) {
  const side = context.canvas.width;
  context.strokeStyle = down ? "#ff9f43" : "#6cb2ff";
  context.lineWidth = side / 100;
  context.beginPath();
  context.arc(x * side, y * side, ((WIDTH / UNIT) * side) / 2, 0, 2 * Math.PI);
  context.stroke();
}
