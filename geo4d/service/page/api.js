// Asking the service: JSON, the token, uploads with progress, and following a job.

export class Problem extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

function problemOf(status, text, retryAfter) {
  let detail = "";
  try { detail = JSON.parse(text).detail; } catch { detail = ""; }
  const wait = retryAfter ? ` Try again in ${retryAfter} s.` : "";
  return new Problem(status, (detail || `the service answered ${status}`) + (wait && "."), retryAfter ? Number(retryAfter) : 0);
}

export async function ask(method, path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, ...options });
  } catch {
    throw new Problem(0, "the service does not answer; is it running?");
  }
  if (!answer.ok) throw problemOf(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  return answer.status === 204 ? null : answer.json();
}

export const get = (path) => ask("GET", path);

export async function openSession(token) {
  await ask("POST", "/api/session", { headers: { Authorization: `Bearer ${token}` } });
}

// Sends a form; the result has a promise of the job and a way to stop.
export function send(form, onShare) {
  const request = new XMLHttpRequest();
  const job = new Promise((resolve, reject) => {
    request.open("POST", "/api/jobs");
    request.upload.onprogress = (event) => event.lengthComputable && onShare(event.loaded / event.total);
    request.upload.onload = () => onShare(1);
    request.onload = () => {
      if (request.status === 201) resolve(JSON.parse(request.responseText));
      else reject(problemOf(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new Problem(0, "the service ended the upload, or cannot be reached"));
    request.onabort = () => reject(new Problem(-1, ""));
    request.send(form);
  });
  return { job, stop: () => request.abort() };
}

// Calls back with the job whenever it changes, with null when it was removed; gives a function that ends it.
export function follow(id, onJob) {
  const events = new EventSource(`/api/jobs/${id}/events`);
  events.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    if (["done", "failed", "cancelled"].includes(job.state)) events.close();
    onJob(job);
  });
  events.addEventListener("removed", () => { events.close(); onJob(null); });
  return () => events.close();
}

// Bytes [start, end) of a file.
export async function bytes(path, start, end) {
  if (end <= start) return new ArrayBuffer(0);
  const answer = await fetch(path, { headers: { Range: `bytes=${start}-${end - 1}` } });
  if (answer.status !== 206) throw problemOf(answer.status, await answer.text(), null);
  return answer.arrayBuffer();
}
