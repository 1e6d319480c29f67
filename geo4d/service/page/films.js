// The pictures of every frame beside each other, exactly in step: one JPEG for each panel and frame, read in pieces.

import { bytes } from "./api.js";

const PIECE = 24; // frames that are read at once
const KEPT = 12; // pieces in memory, at most

const LABELS = {
  picture: ["clip"],
  depth: ["depth", "turbo", "far", "near"],
  moving: ["moving", "viridis", "no", "yes"],
  confidence: ["confidence", "viridis", "0", "1"],
};

export class Films {
  constructor(place, path, index) {
    this.path = path;
    this.index = index;
    this.pieces = new Map();
    this.wanted = -1;
    const [width, height] = index.size;
    place.replaceChildren();
    place.classList.toggle("tall", height > width * 1.15);
    this.canvases = index.panels.map((name) => {
      const figure = document.createElement("figure");
      figure.dataset.panel = name;
      const canvas = document.createElement("canvas");
      canvas.width = width;
      canvas.height = height;
      const caption = document.createElement("figcaption");
      const [label, ramp, low, high] = LABELS[name];
      const part = (tag, text, kind = "") => Object.assign(document.createElement(tag), { textContent: text, className: kind });
      caption.append(part("b", label));
      if (ramp) caption.append(part("small", low), part("span", "", `ramp ${ramp}`), part("small", high));
      figure.append(canvas, caption);
      figure.addEventListener("click", () => figure.classList.toggle("large"));
      place.append(figure);
      return canvas;
    });
  }

  spanOf(piece) {
    const ends = this.index.frames;
    const first = piece * PIECE;
    const last = Math.min(first + PIECE, ends.length) - 1;
    return [first ? ends[first - 1].at(-1) : 0, ends[last].at(-1)];
  }

  load(piece) {
    if (piece * PIECE >= this.index.frames.length || piece < 0) return null;
    if (!this.pieces.has(piece)) {
      const [start, end] = this.spanOf(piece);
      const coming = bytes(this.path, start, end).then((buffer) => ({ buffer, start }));
      coming.catch(() => this.pieces.delete(piece));
      this.pieces.set(piece, coming);
      for (const old of this.pieces.keys()) {
        if (this.pieces.size <= KEPT) break;
        if (Math.abs(old - piece) > 1) this.pieces.delete(old);
      }
    }
    return this.pieces.get(piece);
  }

  // Draws a frame once it is there, unless another one has been asked for meanwhile.
  async show(frame) {
    this.wanted = frame;
    const piece = Math.floor(frame / PIECE);
    const { buffer, start } = await this.load(piece);
    this.load(piece + 1);
    const ends = this.index.frames[frame];
    let from = frame ? this.index.frames[frame - 1].at(-1) : 0;
    const pictures = await Promise.all(ends.map((end) => {
      const data = new Blob([new Uint8Array(buffer, from - start, end - from)], { type: "image/jpeg" });
      from = end;
      return createImageBitmap(data);
    }));
    if (this.wanted !== frame) return;
    pictures.forEach((picture, number) => {
      this.canvases[number].getContext("2d").drawImage(picture, 0, 0);
      this.canvases[number].dataset.frame = frame;
      picture.close();
    });
  }
}
