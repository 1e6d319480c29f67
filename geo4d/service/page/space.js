// Points of the scene in WebGL: what stands still once, what moves for every frame, and the path of the camera.
// Axes are those of geo4d: x right, y down, z forward; a view is a camera of that kind, too.

import { bytes } from "./api.js";

const STRIDE = 16; // bytes of a point
const KEPT = 60; // frames whose points stay on the graphics card
const PATH_COLOUR = [0.35, 0.77, 0.65, 0.9], CAMERA_COLOUR = [0.95, 0.7, 0.36, 1];

const VERTEX = `
attribute vec3 place; attribute vec4 colour;
uniform mat4 view; uniform mat4 lens; uniform float size; uniform float most; varying vec3 shade;
void main() {
  vec4 seen = view * vec4(place, 1.0);
  gl_Position = lens * seen;
  gl_PointSize = clamp(size / max(seen.z, 1e-6), 1.0, most);
  shade = colour.rgb;
}`;
const FRAGMENT = `
precision mediump float; varying vec3 shade; uniform vec4 flat_colour;
void main() {
  if (flat_colour.a > 0.0) { gl_FragColor = flat_colour; return; }
  vec2 off = gl_PointCoord - 0.5;
  if (dot(off, off) > 0.25) discard;
  gl_FragColor = vec4(shade, 1.0);
}`;

const minus = (a, b) => a.map((value, i) => value - b[i]);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => { const length = Math.hypot(...a) || 1; return a.map((value) => value / length); };
const along = (a, d, s) => a.map((value, i) => value + s * d[i]);

// World to camera, column by column, from the camera's axes and place.
function viewOf(right, down, forward, place) {
  return [right[0], down[0], forward[0], 0, right[1], down[1], forward[1], 0, right[2], down[2], forward[2], 0,
    -dot(right, place), -dot(down, place), -dot(forward, place), 1];
}

// Lens from fx fy cx cy, in parts of the width and height of the canvas.
function lensOf(fx, fy, cx, cy, near, far) {
  const depth = (far + near) / (far - near);
  return [2 * fx, 0, 0, 0, 0, -2 * fy, 0, 0, 2 * cx - 1, 1 - 2 * cy, depth, 1, 0, 0, -2 * far * near / (far - near), 0];
}

export class Space {
  constructor(canvas, path, index) {
    this.canvas = canvas;
    this.path = path;
    this.index = index;
    this.frame = 0;
    this.mode = "orbit";
    this.showsPath = true;
    this.size = 1;
    this.still = new Map();
    this.moving = new Map();
    this.gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
    this.ending = new AbortController();
    if (!this.gl) return;
    this.prepare();
    this.place();
    this.listen();
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(canvas);
  }

  get works() { return Boolean(this.gl); }

  close() {
    this.ending.abort();
    this.watcher?.disconnect();
    this.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }

  prepare() {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    this.at = {};
    for (const name of ["view", "lens", "size", "most", "flat_colour"]) this.at[name] = gl.getUniformLocation(program, name);
    this.placeAt = gl.getAttribLocation(program, "place");
    this.colourAt = gl.getAttribLocation(program, "colour");
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(0.035, 0.045, 0.06, 1);
    this.lines = gl.createBuffer();
  }

  sceneOf(frame) { return this.index.scene[frame]; }

  cameraOf(frame) {
    const m = this.index.cameras.c2w[frame];
    return { right: [m[0], m[4], m[8]], down: [m[1], m[5], m[9]], forward: [m[2], m[6], m[10]], place: [m[3], m[7], m[11]] };
  }

  get unit() { return this.index.typical_depth[this.sceneOf(this.frame)] || 1; }

  // Behind and above the first camera of the scene, looking where it looks.
  place() {
    const first = this.index.scene.indexOf(this.sceneOf(this.frame));
    const camera = this.cameraOf(first);
    this.target = along(camera.place, camera.forward, 0.8 * this.unit);
    this.distance = 1.9 * this.unit;
    this.yaw = Math.atan2(camera.forward[0], camera.forward[2]) - 0.38;
    this.pitch = Math.asin(Math.max(-1, Math.min(1, camera.forward[1]))) + 0.26;
    this.placedFor = this.sceneOf(this.frame);
  }

  async show(frame) {
    this.frame = frame;
    if (!this.works) return;
    if (this.placedFor !== this.sceneOf(frame)) this.place();
    this.draw();
    const scene = this.sceneOf(frame);
    const ends = this.index.static_points, frames = this.index.frame_points;
    const behind = ends.at(-1) || 0;
    await Promise.all([
      this.load(this.still, scene, scene ? ends[scene - 1] : 0, ends[scene]),
      this.load(this.moving, frame, frame ? frames[frame - 1] : behind, frames[frame]),
    ]);
    if (this.frame === frame) this.draw();
  }

  load(shelf, key, start, end) {
    if (!shelf.has(key)) {
      const coming = bytes(this.path, start * STRIDE, end * STRIDE).then((data) => {
        const gl = this.gl, buffer = gl.createBuffer();
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
        coming.points = { buffer, count: end - start };
      });
      coming.catch(() => shelf.delete(key));
      shelf.set(key, coming);
      if (shelf.size > KEPT) {
        const oldest = shelf.keys().next().value;
        const points = shelf.get(oldest).points;
        if (points) this.gl.deleteBuffer(points.buffer);
        shelf.delete(oldest);
      }
    }
    return shelf.get(key);
  }

  lensAndView(width, height) {
    const near = 0.02 * this.unit, far = 200 * this.unit;
    if (this.mode === "camera") {
      const { right, down, forward, place } = this.cameraOf(this.frame);
      const [w, h] = this.index.map_size, [fx, fy, cx, cy] = this.index.cameras.intrinsics[this.frame];
      const factor = Math.min(width / w, height / h); // the whole picture, with room beside or above it
      const left = (width - factor * w) / 2, top = (height - factor * h) / 2;
      const lens = lensOf(factor * fx / width, factor * fy / height, (left + factor * cx) / width, (top + factor * cy) / height, near, far);
      return { lens, view: viewOf(right, down, forward, place), focal: factor * fx };
    }
    const c = Math.cos(this.pitch);
    const forward = [Math.sin(this.yaw) * c, Math.sin(this.pitch), Math.cos(this.yaw) * c];
    const right = unit(cross([0, 1, 0], forward)), down = cross(forward, right);
    const focal = 0.9 * Math.max(width, height);
    return {
      lens: lensOf(focal / width, focal / height, 0.5, 0.5, near, far),
      view: viewOf(right, down, forward, along(this.target, forward, -this.distance)), focal, right, down, forward,
    };
  }

  draw() {
    const gl = this.gl, ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (!gl || !width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const { lens, view, focal } = this.lensAndView(width, height);
    gl.uniformMatrix4fv(this.at.lens, false, lens);
    gl.uniformMatrix4fv(this.at.view, false, view);
    gl.uniform1f(this.at.most, 14 * ratio);
    gl.uniform1f(this.at.size, this.size * focal * this.unit * 0.0062);
    gl.uniform4f(this.at.flat_colour, 0, 0, 0, 0);
    let count = 0;
    for (const points of [this.still.get(this.sceneOf(this.frame))?.points, this.moving.get(this.frame)?.points]) {
      if (!points?.count) continue;
      gl.bindBuffer(gl.ARRAY_BUFFER, points.buffer);
      gl.enableVertexAttribArray(this.placeAt);
      gl.enableVertexAttribArray(this.colourAt);
      gl.vertexAttribPointer(this.placeAt, 3, gl.FLOAT, false, STRIDE, 0);
      gl.vertexAttribPointer(this.colourAt, 4, gl.UNSIGNED_BYTE, true, STRIDE, 12);
      gl.drawArrays(gl.POINTS, 0, points.count);
      count += points.count;
    }
    if (this.showsPath && this.mode === "orbit" && this.index.cameras.known) this.drawCameras();
    this.canvas.dataset.points = count;
    this.canvas.dataset.frame = this.frame;
  }

  drawCameras() {
    const scene = this.sceneOf(this.frame), path = [];
    for (let t = 0; t < this.index.scene.length; t++) if (this.sceneOf(t) === scene) path.push(...this.cameraOf(t).place);
    this.drawLines(path, this.gl.LINE_STRIP, PATH_COLOUR);
    const { right, down, forward, place } = this.cameraOf(this.frame);
    const [w, h] = this.index.map_size, [fx, fy, cx, cy] = this.index.cameras.intrinsics[this.frame], far = 0.1 * this.unit;
    const corners = [[0, 0], [w, 0], [w, h], [0, h]].map(([x, y]) =>
      along(along(along(place, right, far * (x - cx) / fx), down, far * (y - cy) / fy), forward, far));
    const frustum = [];
    corners.forEach((corner, i) => frustum.push(...place, ...corner, ...corner, ...corners[(i + 1) % 4]));
    this.drawLines(frustum, this.gl.LINES, CAMERA_COLOUR);
  }

  drawLines(places, kind, colour) {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.lines);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(places), gl.DYNAMIC_DRAW);
    gl.disableVertexAttribArray(this.colourAt);
    gl.enableVertexAttribArray(this.placeAt);
    gl.vertexAttribPointer(this.placeAt, 3, gl.FLOAT, false, 0, 0);
    gl.uniform4fv(this.at.flat_colour, colour);
    gl.drawArrays(kind, 0, places.length / 3);
    gl.uniform4f(this.at.flat_colour, 0, 0, 0, 0);
  }

  setMode(mode) { this.mode = mode; this.draw(); }
  setPath(shown) { this.showsPath = shown; this.draw(); }
  scalePoints(factor) { this.size = Math.max(0.2, Math.min(6, this.size * factor)); this.draw(); }

  listen() {
    const fingers = new Map(), canvas = this.canvas, signal = this.ending.signal;
    const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
    const on = (name, act, options = {}) => canvas.addEventListener(name, act, { signal, ...options });
    on("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    const lift = (event) => fingers.delete(event.pointerId);
    on("pointerup", lift);
    on("pointercancel", lift);
    on("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before || this.mode !== "orbit") return;
      const dx = event.clientX - before.x, dy = event.clientY - before.y;
      const apart = fingers.size === 2 ? spread() : 0;
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (fingers.size === 2) {
        this.distance *= apart / Math.max(spread(), 1);
        this.pan(dx / 2, dy / 2);
      } else if (event.shiftKey || event.buttons === 2 || event.buttons === 4) this.pan(dx, dy);
      else this.turn(dx * 0.006, dy * 0.006);
      this.draw();
    });
    on("wheel", (event) => {
      if (this.mode !== "orbit") return;
      event.preventDefault();
      this.distance *= Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY * 0.0012)));
      this.draw();
    }, { passive: false });
    on("contextmenu", (event) => event.preventDefault());
    on("dblclick", () => { this.place(); this.draw(); });
    on("keydown", (event) => {
      const turns = { ArrowLeft: [-0.08, 0], ArrowRight: [0.08, 0], ArrowUp: [0, -0.08], ArrowDown: [0, 0.08] };
      if (!turns[event.key] || this.mode !== "orbit") return;
      event.preventDefault();
      event.stopPropagation();
      this.turn(...turns[event.key]);
      this.draw();
    });
  }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.max(-1.5, Math.min(1.5, this.pitch + pitch));
  }

  pan(dx, dy) {
    const { right, down, focal } = this.lensAndView(this.canvas.clientWidth, this.canvas.clientHeight);
    const step = this.distance / focal;
    this.target = along(along(this.target, right, -dx * step), down, -dy * step);
  }
}
