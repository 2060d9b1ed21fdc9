/** The web chat API as the widget uses it: `docs/reference/webchat-api.md`. */

import type { Contact } from "./kept";
import { retryAfter } from "./waiting";
import { MOST_BITS, solve } from "./work";

export interface Notice {
  readonly version: string;
  readonly text: string;
  readonly link: string | null;
}

export interface Site {
  readonly title: string;
  readonly greeting: string | null;
  readonly hours: { readonly open: boolean; readonly text: string | null; readonly away: string | null } | null;
  readonly theme: { readonly accent: string; readonly on_accent: string; readonly scheme: string; readonly side: string };
  readonly consent: Notice | null;
  readonly prechat: { readonly name: Asked; readonly email: Asked };
  readonly ask_contact: boolean;
  readonly rating: boolean;
}

export type Asked = "off" | "optional" | "required";

export interface Conversation {
  readonly id: string;
  readonly status: "open" | "closed" | "erased";
  readonly last_seq: number;
  readonly agent: string | null;
  readonly contact: boolean;
  readonly rated: boolean;
}

export interface Message {
  readonly seq: number;
  readonly id: string;
  readonly client_message_id: string | null;
  readonly role: "visitor" | "agent" | "assistant";
  readonly author: string | null;
  readonly text: string | null;
  readonly at: string;
}

/** What any of the requests may answer; each has its own part of it. */
export interface Body {
  readonly token: string;
  readonly visitor: string;
  readonly site: Site;
  readonly conversation: Conversation;
  readonly contact: Contact;
  readonly message: Message;
  readonly messages: readonly Message[];
  readonly more: boolean;
  readonly type: string;
  readonly consent: Notice;
  readonly challenge: { readonly nonce: string; readonly bits: number };
}

export interface Answer {
  /** 0 when none came. */
  readonly status: number;
  readonly body: Partial<Body>;
  /** The problem's id, or "" when all is well. */
  readonly problem: string;
  /** Milliseconds that the server asks to wait. */
  readonly wait: number;
}

export type Api = ReturnType<typeof api>;

/** Milliseconds until a request without an answer counts as lost. */
const LONGEST = 30_000;

/**
 * Asks the chat for the visitor `secret`, and has it `welcome` who the server says it is; whether that is still
 * the visitor who `asked`.
 */
export function api(
  address: string,
  site: string,
  language: string,
  secret: () => Promise<string | undefined>,
  welcome: (body: Body, asked: string | undefined) => Promise<boolean>,
) {
  let token = "";
  let bootstrapping: Promise<Answer> | undefined;

  /** Site settings and a token; requests that come at the same time share one. */
  function bootstrap(): Promise<Answer> {
    return (bootstrapping ??= (async () => {
      const visitor = await secret();
      const answer = await answered(() => request("bootstrap", { visitor, language }));
      const { body } = answer;
      if (body.token && (await welcome(body as Body, visitor))) token = body.token;
      bootstrapping = undefined;
      return answer;
    })());
  }

  /** The response itself, for the event stream. Throws the `Answer` when no token can be had. */
  async function open(path: string, body?: object, headers = {}, signal?: AbortSignal) {
    if (!token) {
      const answer = await bootstrap();
      if (answer.problem) throw answer;
    }
    const authorized = { ...headers, Authorization: `Bearer ${token}` };
    const response = await request(path, body, authorized, signal);
    if (response.status === 401) token = "";
    return response;
  }

  /** A request with a token, repeated with a new one, or with the work that was asked for. */
  async function send(path: string, body?: object): Promise<Answer> {
    const headers: Record<string, string> = {};
    for (let tries = 0; ; tries++) {
      const answer = await answered(() => open(path, body, headers));
      const { challenge } = answer.body;
      if (answer.status !== 401 && !(challenge && challenge.bits <= MOST_BITS)) return answer;
      if (tries > 1) return answer;
      if (challenge) headers["Webchat-Challenge"] = await solve(challenge.nonce, challenge.bits);
    }
  }

  function request(path: string, body?: object, headers = {}, signal = AbortSignal.timeout(LONGEST)): Promise<Response> {
    return fetch(`${address}/api/webchat/v1/${path}`, {
      method: body ? "POST" : "GET",
      body: body ? JSON.stringify(body) : null,
      credentials: "omit",
      headers: {
        ...headers,
        ...(body && { "Content-Type": "application/json" }),
        "Webchat-Site": site,
      },
      signal,
    });
  }

  return {
    bootstrap,
    open,
    send,
    /** The next request asks for a token first: the server or the visitor is done with this one. */
    renounce() {
      token = "";
    },
  };
}

async function answered(request: () => Promise<Response>): Promise<Answer> {
  try {
    const response = await request();
    const { status, ok } = response;
    const body = await response.json().catch(() => ({})); // nothing, or a proxy's page
    const problem = ok ? "" : `${body.type}`.replace(/.*#/, "");
    return { status, body, problem, wait: retryAfter(response) };
  } catch (error) {
    if ((error as Answer).body) return error as Answer;
    return { status: 0, body: {}, problem: "network", wait: 0 };
  }
}
