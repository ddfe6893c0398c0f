// A small service that speaks the contract: sockets, SSE, polls and requests, on a port of its own.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocket, WebSocketServer } from "ws";
import type { ClientFrame, ImageStatus, Scope, ServerFrame } from "../src/index.js";
import { concerns } from "../src/views.js";

export const USER = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
export const CHAPTER = "5d2b0b5e-6a0c-4b0e-8a39-0d3b7a7c1f44";
const SUBPROTOCOL = "scenewire.v1+json";
const BEARER = "base64url.bearer.scenewire.";

/** A token as the service signs them, without a signature: the client never checks one. */
export function token(seconds = 3600, claims: object = {}): string {
  const payload = { sub: USER, exp: Date.now() / 1000 + seconds, jti: Math.random(), ...claims };
  return `e30.${Buffer.from(JSON.stringify(payload)).toString("base64url")}.x`;
}

export function image(scene: number, version: number, more: Partial<ImageStatus> = {}): ImageStatus {
  const record_id = more.record_id ?? `0000000${scene}-0000-4000-8000-000000000000`;
  return {
    record_id,
    task_id: record_id,
    user_id: USER,
    chapter_id: CHAPTER,
    script_id: null,
    scene_number: scene,
    image_type: "scene",
    status: "pending",
    stage: "queued",
    progress: 0,
    version,
    attempt: 0,
    retry_count: 0,
    retry_at: null,
    queue_position: null,
    eta_seconds: null,
    image_url: null,
    model_id: null,
    error_class: null,
    error_code: null,
    error_message: null,
    created_at: "2026-11-26T10:00:00+00:00",
    updated_at: new Date().toISOString(),
    completed_at: null,
    ...more,
  };
}

export const completed = (scene: number, version: number, more: Partial<ImageStatus> = {}): ImageStatus =>
  image(scene, version, {
    status: "completed",
    stage: "done",
    progress: 100,
    image_url: `https://pictures.test/${scene}-${version}.png`,
    ...more,
  });

export class Peer {
  readonly frames: ClientFrame[] = [];
  readonly scopes = new Map<string, Scope>();
  token = "";

  constructor(
    readonly socket: WebSocket,
    readonly address: string,
  ) {}

  send(frame: ServerFrame): void {
    this.socket.send(JSON.stringify(frame));
  }

  subscribed(): ClientFrame[] {
    return this.frames.filter(({ type }) => type === "subscribe");
  }
}

export class Service {
  readonly peers: Peer[] = [];
  /** Every handshake that came, whatever became of it. */
  handshakes = 0;
  readonly requests: IncomingMessage[] = [];
  readonly bodies: unknown[] = [];
  readonly log: ImageStatus[] = [];
  pingIntervalMs = 15_000;
  /** What becomes of a new socket. */
  mode: "welcome" | "silent" | "refuse" | "never" = "welcome";
  /** Accepts a token; others are closed with 4401, or answered 401. */
  accepts: (token: string) => boolean = () => true;
  answersPings = true;
  /** SSE: `whole` streams, `buffered` sends nothing, as behind some proxies, `missing` is a 404, the others 503. */
  sse: "whole" | "buffered" | "missing" | "full" | "restarting" = "whole";
  polls = true;
  /** Answers of POST, one after the other; 202 when there are none left. */
  readonly answers: { status: number; headers?: Record<string, string>; body?: object }[] = [];
  readonly streams = new Set<ServerResponse>();
  #held = new Set<() => void>();
  #unanswered = new Set<Duplex>();
  #server: Server;
  #prefix: string;
  #sockets = new WebSocketServer({
    noServer: true,
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  });
  url = "";

  /** Under the path `prefix`, as behind a gateway that takes it off; what is not under it is not the service's. */
  constructor(prefix = "") {
    this.#prefix = prefix;
    const taken = (request: IncomingMessage) => {
      const { url = "" } = request;
      request.url = url.slice(prefix.length);
      return url.startsWith(`${prefix}/`);
    };
    this.#server = createServer((request, response) => {
      if (taken(request)) this.#answer(request, response);
      else response.writeHead(404).end();
    });
    this.#server.on("upgrade", (request, socket, head) => {
      const ours = taken(request);
      this.handshakes += 1;
      if (this.mode === "refuse" || !ours) socket.destroy();
      else if (this.mode === "never") this.#unanswered.add(socket);
      else {
        this.#sockets.handleUpgrade(request, socket, head, (opened) => this.#opened(opened, request));
      }
    });
  }

  async start(): Promise<this> {
    await new Promise<void>((done) => this.#server.listen(0, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${this.#prefix}`;
    return this;
  }

  async stop(): Promise<void> {
    for (const { socket } of this.peers) socket.terminate();
    for (const socket of this.#unanswered) socket.destroy();
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  get peer(): Peer {
    return this.peers[this.peers.length - 1]!;
  }

  get open(): Peer[] {
    return this.peers.filter(({ socket }) => socket.readyState === WebSocket.OPEN);
  }

  /** A change: on record, and to whoever watches. */
  push(changed: ImageStatus): void {
    this.log.push(changed);
    for (const peer of this.open) {
      if ([...peer.scopes.values()].some((scope) => concerns(scope, changed))) {
        peer.send({ type: "status", image: changed, cursor: this.cursor() });
      }
    }
    for (const stream of this.streams)
      this.#event(stream, "status", { type: "status", image: changed, cursor: this.cursor() });
    for (const wake of this.#held) wake();
  }

  /** A change that nobody is told of. */
  miss(changed: ImageStatus): void {
    this.log.push(changed);
  }

  cursor(): string {
    return `at-${this.log.length}`;
  }

  /** The newest version of each record of a scope; with a cursor only what has changed since. */
  images(scope: Scope, cursor?: string | null): ImageStatus[] {
    const from = cursor ? Number(cursor.slice(3)) : 0;
    const newest = new Map<string, ImageStatus>();
    for (const each of this.log.slice(from)) if (concerns(scope, each)) newest.set(each.record_id, each);
    return [...newest.values()];
  }

  #opened(socket: WebSocket, request: IncomingMessage): void {
    const peer = new Peer(socket, request.url!);
    this.peers.push(peer);
    const bearer = request.headers["sec-websocket-protocol"]?.split(/, */).find((each) => each.startsWith(BEARER));
    socket.on("message", (data) => this.#frame(peer, JSON.parse(String(data))));
    if (this.mode === "silent") return;
    this.#authorise(peer, Buffer.from(bearer?.slice(BEARER.length) ?? "", "base64url").toString());
  }

  #authorise(peer: Peer, given: string): void {
    if (!this.accepts(given)) {
      peer.socket.close(4401, "token_expired");
      return;
    }
    peer.token = given;
    const { exp } = JSON.parse(Buffer.from(given.split(".")[1]!, "base64url").toString());
    const expires_at = new Date(exp * 1000).toISOString();
    peer.send({ type: "welcome", ping_interval_ms: this.pingIntervalMs, expires_at });
  }

  #frame(peer: Peer, frame: ClientFrame): void {
    peer.frames.push(frame);
    if (this.mode === "silent" || peer.socket.readyState !== WebSocket.OPEN) return;
    if (frame.type === "auth") this.#authorise(peer, frame.token);
    else if (frame.type === "ping" && this.answersPings) peer.send({ type: "pong" });
    else if (frame.type === "unsubscribe") peer.scopes.delete(frame.id);
    else if (frame.type === "subscribe") {
      const { type, cursor, ...scope } = frame;
      peer.scopes.set(frame.id, scope as Scope);
      const images = this.images(scope as Scope, cursor);
      if (frame.record_id && !images.length && !cursor) {
        peer.send({
          type: "error",
          id: frame.id,
          code: "not_found",
          message: "There is no such image of yours.",
        });
        return;
      }
      peer.send({ type: "snapshot", id: frame.id, images, cursor: this.cursor(), resumed: cursor ? "memory" : null });
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requests.push(request);
    const url = new URL(request.url!, this.url);
    const say = (status: number, body?: object, headers: Record<string, string> = {}) => {
      response.writeHead(status, { "Content-Type": "application/json", ...headers });
      response.end(body && JSON.stringify(body));
    };
    const given = request.headers.authorization?.replace("Bearer ", "") ?? "";
    if (!this.accepts(given))
      return say(401, { title: "Unauthorized", detail: "The token has expired.", code: "token_expired" });
    if (request.method === "POST") {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = JSON.parse(Buffer.concat(chunks).toString());
      this.bodies.push(body);
      const { status, headers, body: said } = this.answers.shift() ?? { status: 202 };
      const scene = Number(url.pathname.split("/").pop());
      const { record_id, task_id } = image(scene, 1);
      const accepted = { task_id, record_id, status: "queued", message: "Queued.", estimated_time_seconds: 20 };
      const links = { scene_number: scene, retry_count: 0, status_url: "", events_url: "" };
      return say(status, said ?? { ...accepted, ...links }, headers);
    }
    const [, kind, id, what] = url.pathname.split("/");
    if (kind === "chapters" && what === "events") return this.#stream(request, response, { id: "", chapter_id: id });
    if (!this.polls) return say(503, { detail: "The database is away.", code: "unavailable" }, { "Retry-After": "1" });
    const wait = Number(/wait=(\d+)/.exec(String(request.headers.prefer ?? ""))?.[1] ?? 0);
    if (kind === "images") {
      const scope = { id: "", record_id: id };
      const etag = () => `"${id}.${this.images(scope)[0]?.version}"`;
      if (!this.images(scope).length)
        return say(404, { detail: "There is no such image of yours.", code: "not_found" });
      if (wait) await this.#change(request, wait, () => request.headers["if-none-match"] !== etag());
      const [found] = this.images(scope);
      if (request.headers["if-none-match"] === etag()) return say(304, undefined, { ETag: etag() });
      return say(200, found, { ETag: etag(), "Preference-Applied": `wait=${wait}` });
    }
    const cursor = url.searchParams.get("cursor");
    const scope = { id: "", chapter_id: id };
    if (wait && cursor) await this.#change(request, wait, () => cursor !== this.cursor());
    say(200, { images: this.images(scope), cursor: this.cursor(), resumed: cursor && "snapshot" });
  }

  #change(request: IncomingMessage, seconds: number, wanted: () => boolean): Promise<void> {
    return new Promise((done) => {
      const wake = () => wanted() && end();
      const end = () => {
        clearTimeout(timer);
        this.#held.delete(wake);
        done();
      };
      const timer = setTimeout(end, seconds * 1000);
      request.on("close", end);
      this.#held.add(wake);
      wake();
    });
  }

  #stream(request: IncomingMessage, response: ServerResponse, scope: Scope): void {
    if (this.sse === "missing") {
      response.writeHead(404).end();
      return;
    }
    if (this.sse === "full" || this.sse === "restarting") {
      response.writeHead(503, { "Retry-After": "1" });
      response.end(
        JSON.stringify({ detail: "Come back.", code: this.sse === "full" ? "too_many_streams" : "restarting" }),
      );
      return;
    }
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.flushHeaders();
    if (this.sse === "buffered") return;
    const last = request.headers["last-event-id"] as string | undefined;
    const resumed = last ? "memory" : null;
    this.#event(response, "snapshot", {
      type: "snapshot",
      id: "",
      images: this.images(scope, last),
      cursor: this.cursor(),
      resumed,
    });
    this.streams.add(response);
    response.on("close", () => this.streams.delete(response));
  }

  #event(response: ServerResponse, name: string, data: object): void {
    response.write(`id: ${this.cursor()}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  }
}

/** Waits until something holds, and says what did not when it is never so. */
export async function until(holds: () => unknown, what = String(holds), withinMs = 5_000): Promise<void> {
  const end = performance.now() + withinMs;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`never came true: ${what}`);
    await new Promise((again) => setImmediate(again));
  }
}
