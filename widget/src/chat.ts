/** The chat: what the visitor writes, what the server knows, and what the screen shows of both. */

import { api, type Answer, type Conversation, type Message, type Site } from "./api";
import { keeper, type Kept } from "./kept";
import { changed, next, written, type Waiting } from "./outbox";
import { follow, type Happening, type Timer } from "./stream";
import { tabs } from "./tabs";
import { view, type Line } from "./view";
import { backoff } from "./waiting";
import * as words from "./words";

/** What the loader drives. */
export type App = ReturnType<typeof mount>;

/** Milliseconds between two signs that the visitor types, and that one of the operator's holds. */
const TYPING = 3_000;
const TYPING_HOLDS = 6_000;

/** What tabs tell each other: to read again, to ask the server, to forget, that all is erased; or what happened. */
type Told = "kept" | "begun" | "reset" | "erased" | { readonly id: string; readonly happening: Happening };

export function mount(host: HTMLElement, launcher: HTMLButtonElement, address: string, key: string) {
  let site: Site | undefined;
  let conversation: Conversation | undefined;
  /** What was said in it, by sequence number; and before it, in this page's earlier ones. */
  let thread: Message[] = [];
  let earlier: Message[] = [];
  /** Everything up to this sequence number is in the thread. */
  let cursor = 0;
  let live = false;
  let following: AbortController | undefined;
  let identity: string | undefined;
  let blocked = false;
  let unreachable = false;
  let note = "";
  let typing = "";
  let typingTimer: Timer;
  let typedAt = 0;
  /** Whether an address was asked for on this page, and how it was of this conversation. */
  let offered = false;
  let rated = false;
  let failures = 0;
  /** The server asked not to be asked before. */
  let pausedUntil = 0;
  let timer: Timer;

  const mine = keeper(host.id);
  const { tell, lead, alone } = tabs(host.id, heard);
  const { bootstrap, open, renounce, send } = api(
    address,
    key,
    words.language,
    async () => (await change()).visitor,
    async ({ site: found, visitor, conversation }, asked) => {
      site = found;
      // Forgotten meanwhile, or another tab was first: the answer is about somebody else.
      const kept = await change((kept) => (kept.visitor === asked ? { visitor } : {}));
      const same = kept.visitor === visitor;
      if (same) took(conversation);
      return same;
    },
  );
  const screen = view(host, launcher, write, typed, end, erase, toggled);

  addEventListener("online", begin);
  addEventListener("offline", render);
  document.addEventListener("visibilitychange", render);
  // The page may come back as it was (bfcache), but not while it holds a lock and a stream.
  addEventListener("pagehide", leave);
  addEventListener("pageshow", () => took(conversation));
  render();

  /** What there is to do first, and after a failure: settings, then what waits. */
  async function begin(): Promise<void> {
    failures = 0;
    if (!site) {
      const { problem, status, wait } = await bootstrap();
      blocked = status === 403 || status === 404;
      unreachable = !!problem;
      if (problem && !blocked) later(wait, begin);
    }
    await drain();
  }

  /** This is the visitor's conversation now, or what has become of it. */
  function took(found: Conversation | null | undefined): void {
    if (found?.status === "erased") return wipe();
    const before = conversation;
    const same = before?.id === found?.id;
    conversation = found ?? undefined;
    if (!same) {
      earlier.push(...thread);
      thread = [];
      cursor = 0;
      live = rated = false;
    }
    if (!same || (isOpen() && before?.status !== "open")) leave();
    if (!isOpen()) {
      typing = "";
      if (same && before?.status === "open") {
        note = "";
        raise("end");
      }
    }
    if (found && !following) void attend(found, (following = new AbortController()).signal);
    else if (live && found && found.last_seq > cursor) void catchUp();
    if (!isOpen() && live) following?.abort();
    if (found?.status === "closed" && !rated && !found.rated && site?.rating) void rate();
    render();
  }

  function leave(): void {
    following?.abort();
    following = undefined;
  }

  /** What was said before, then what is said from now on; the stream is one tab's for all. */
  async function attend({ id }: Conversation, signal: AbortSignal): Promise<void> {
    await catchUp(); // always: what was told just before this tab listened it has not heard
    live = true;
    render();
    if (signal.aborted || !isOpen()) return;
    const happened = (happening: Happening) => {
      tell({ id, happening });
      happens(happening);
    };
    const poll = async () => {
      const answered = await catchUp("&status=open&wait=25");
      if (conversation) happened({ type: "conversation", data: conversation });
      return answered;
    };
    lead(id, (led) => follow({ open, renounce }, id, () => cursor, happened, poll, led), signal);
  }

  /** Gets what is missing; `more` waits for it. Whether there was an answer. */
  async function catchUp(more = ""): Promise<boolean> {
    const { id } = conversation!;
    const { body, problem } = await send(`messages?conversation_id=${id}&after=${cursor}${more}`);
    if (id === conversation?.id) {
      body.messages?.forEach(add);
      if (body.conversation) took(body.conversation);
      if (problem === "not-found") took(undefined);
    }
    return !problem;
  }

  function happens({ type, data }: Happening): void {
    if (type === "conversation") took(data);
    else if (type === "typing") {
      typing = data.author;
      clearTimeout(typingTimer);
      typingTimer = setTimeout(() => {
        typing = "";
        render();
      }, TYPING_HOLDS);
    } else {
      if (data.author === typing) typing = "";
      add(data);
      if (data.seq > cursor) void catchUp(); // one was missed
      if (data.role !== "visitor") raise("message", data);
    }
    render();
  }

  function add(message: Message): void {
    if (!thread.some(({ seq }) => seq === message.seq))
      thread = [...thread, message].sort((one, other) => one.seq - other.seq);
    while (thread[cursor]?.seq === cursor + 1) cursor++;
    const id = message.client_message_id;
    if (mine.kept.outbox.some((one) => one.id === id)) void revise(id);
  }

  async function heard(told: Told): Promise<void> {
    if (told === "erased") wipe();
    else if (told === "reset") forget();
    else if (told === "kept") await change();
    else if (told === "begun") {
      renounce(); // another tab has a conversation: whether it is this visitor's the server knows
      if (site) await bootstrap();
    } else if (told.id === conversation?.id) happens(told.happening);
    render();
  }

  /** What is in the field becomes a message, once the visitor may be heard and remembered. */
  async function write(): Promise<void> {
    const { field } = screen;
    note = "";
    // Without a question there is no pause either, in which the next message could be begun.
    if (written(field.value) && (agreed() || (await agree()))) {
      const message = written(field.value); // the visitor may have gone on writing
      field.value = "";
      if (message) {
        const before = mine.kept.visitor;
        const add = ({ outbox }: Kept) => ({ outbox: [...outbox, message] });
        const { visitor } = await change(add, true);
        if (visitor !== before) renounce(); // another tab was first
        await drain();
        await offer();
      }
    }
    render();
  }

  function due(): boolean {
    return !!site!.consent && site!.consent.version !== mine.kept.consent;
  }

  /** Whether the site wants to know who it is, before the first message of a conversation. */
  function asks(): boolean {
    const { name, email } = site!.prechat;
    return name + email !== "offoff" && !isOpen() && !mine.kept.contact && !identity;
  }

  function agreed(): boolean {
    return !!site && !blocked && !due() && !asks();
  }

  /** Asks for consent and for what the site wants to know; without it nothing is stored or sent. */
  async function agree(): Promise<boolean> {
    if (!site) await begin();
    if (!site || blocked) return false;
    if (agreed()) return true;
    const { consent, prechat, title } = site;
    const contact = await screen.ask({
      ...(due() ? { ...consent!, yes: words.agree } : { text: title, yes: words.send }),
      ...(asks() && { fields: prechat }),
    });
    if (!contact) return false;
    raise("consent");
    await change(() => ({ consent: consent?.version, contact }), true);
    return true;
  }

  /** Sends what waits, in order, one tab at a time. */
  function drain(): Promise<void> {
    return alone(async () => {
      while (await step());
      render();
    });
  }

  /** The one request that is due; whether to go on at once. */
  async function step(): Promise<boolean> {
    const { outbox, contact, consent } = await change();
    let message = next(outbox);
    const id = message?.id;
    const to = message?.to ?? conversation?.id;
    const due = message || (isOpen() && (contact || identity));
    if (blocked || Date.now() < pausedUntil || !due) return false;
    render();
    let answer: Answer;
    if (contact || identity || !to || !(message!.to || isOpen())) {
      const page_url = location.origin + location.pathname;
      answer = await send("sessions", { consent, contact, identity, page_url, language: words.language });
      if (!answer.problem) {
        identity = undefined;
        if (contact) await change(() => ({ contact: undefined }));
        if (!isOpen()) {
          took(answer.body.conversation);
          tell("begun");
        }
      }
    } else {
      await revise(id, { to });
      message = { ...message!, to };
      const { text } = message;
      const body = { conversation_id: to, client_message_id: id, text };
      answer = await send("messages", body);
      if (answer.body.message) {
        if (to === conversation?.id) add(answer.body.message);
        await revise(id);
      }
    }
    unreachable = !answer.status;
    if (!answer.problem) failures = 0;
    return !answer.problem || refused(answer, message, contact);
  }

  /** What a refusal means for what was to be sent; whether to go on at once. */
  async function refused(
    { problem, status, wait, body }: Answer,
    message: Waiting | undefined,
    contact: object | undefined,
  ): Promise<boolean> {
    if (/^consent/.test(problem)) {
      // A new notice: without consent to it the text goes back to where it was written.
      site = { ...site!, consent: body.consent ?? site!.consent };
      await change(() => ({ consent: undefined }));
      void agree().then((yes) => (yes ? drain() : [...mine.kept.outbox].reverse().forEach(edit)));
    } else if (message?.to && /^(conv|not-f)/.test(problem)) {
      // It is not stored there, or the answer would have been that it is: it goes to a new one.
      if (message.to === conversation?.id)
        took(status === 404 ? undefined : { ...conversation, status: "closed" });
      await revise(message.id, { to: undefined });
      later(0, drain);
    } else if (/^(site|origin|not-f)/.test(problem)) blocked = true;
    else if (/^identity/.test(problem)) {
      identity = undefined;
      raise("error", { ["problem"]: problem });
      return true;
    } else if (contact && status === 422) {
      note = words.failed;
      await change(() => ({ contact: undefined }));
      return true;
    } else if (/^4(0[09]|1|22)/.test(`${status}`)) {
      await revise(message?.id, { refusal: problem });
      return true;
    } else later(wait, drain);
    return false;
  }

  /** Offers, once a page, to leave an address after the first message. */
  async function offer(): Promise<void> {
    if (offered || !site?.ask_contact || !isOpen() || conversation!.contact || identity) return;
    offered = true;
    const given = await screen.ask({
      text: words.reach,
      yes: words.send,
      fields: { name: "off", email: "required" },
      quiet: true,
    });
    if (!given) return;
    note = words.thanks;
    await change(() => ({ contact: given }));
    await drain();
  }

  /** How it was, asked when the conversation has ended. */
  async function rate(): Promise<void> {
    rated = true;
    const given = await screen.ask({
      text: words.rate,
      yes: "12345",
      quiet: true,
    });
    if (!given) return;
    const { problem } = await send("rating", { ...about(), rating: given.answer });
    note = problem ? words.failed : words.thanks;
    render();
  }

  function typed(): void {
    if (!isOpen() || Date.now() - typedAt < TYPING) return;
    typedAt = Date.now();
    void send("typing", about());
  }

  function toggled(open: boolean): void {
    raise(open ? "open" : "close");
    if (open) void begin();
    render();
  }

  function edit({ id, text }: Waiting): void {
    const { field } = screen;
    field.value = `${text}\n${field.value}`.trim();
    field.focus();
    void revise(id);
  }

  async function end(): Promise<void> {
    const { body } = await send("end", about());
    if (!body.conversation) note = words.failed;
    took(body.conversation ?? conversation);
  }

  async function erase(): Promise<void> {
    if (!(await screen.ask({ text: `${words.erase}?`, yes: words.erase }))) return;
    const { problem } = await send("erase", {});
    if (problem) note = words.failed;
    else {
      tell("erased");
      wipe();
    }
    render();
  }

  /** The server has removed everything: nothing stays here. */
  function wipe(): void {
    forget();
    note = words.erased;
    render();
  }

  function forget(): void {
    identity = undefined;
    offered = false;
    note = "";
    renounce();
    took(undefined);
    earlier = [];
    mine.forget();
    render();
  }

  function later(wait: number, what: () => Promise<void>): void {
    pausedUntil = Date.now() + wait;
    clearTimeout(timer);
    timer = setTimeout(what, wait + backoff(++failures));
  }

  /** What is kept, here and in the other tabs. */
  async function change(what?: (kept: Kept) => Partial<Kept>, agreed?: boolean): Promise<Kept> {
    const kept = await mine.change(what, agreed);
    if (what) tell("kept");
    render();
    return kept;
  }

  /** A message that waits becomes another, or is no more. */
  function revise(id: string | null | undefined, how?: Partial<Waiting>): Promise<Kept> {
    return change(({ outbox }) => ({ outbox: changed(outbox, id, how) }));
  }

  function raise(type: string, detail?: object): void {
    host.dispatchEvent(new CustomEvent(`chat-${type}`, { detail, bubbles: true }));
  }

  function isOpen(): boolean {
    return conversation?.status === "open";
  }

  function about(): { conversation_id: string } {
    return { conversation_id: conversation!.id };
  }

  function render(): void {
    const { outbox, seen } = mine.kept;
    const id = conversation?.id ?? "";
    let read = seen?.id === id ? seen.seq : 0;
    if (screen.dialog.open && !document.hidden && cursor > read) {
      read = cursor;
      void change(() => ({ seen: { id, seq: cursor } }));
    }
    const title = site?.title ?? "";
    const away = site?.hours?.open === false && site.hours.away;
    const lines: Line[] = [site?.greeting, away].flatMap((text) =>
      text ? [[text, title, text, ""]] : [],
    );
    for (const { client_message_id, id, role, author, text, at } of [...earlier, ...thread]) {
      const by = role === "visitor" ? "" : (author ?? title);
      lines.push([client_message_id ?? id, by, text ?? "–", (by && `${by} · `) + time(at)]);
    }
    for (const one of outbox)
      if (!thread.some(({ client_message_id }) => client_message_id === one.id))
        lines.push([one.id, "", one.text, one.refusal ? words.notSent : words.sending, one.refusal && (() => edit(one))]);
    screen.show({
      site,
      live,
      lines,
      conversation,
      unread: thread.filter(({ seq, role }) => seq > read && role !== "visitor").length,
      note: blocked
        ? words.unavailable
        : unreachable || !navigator.onLine
          ? words.offline
          : note ||
            (typing ? words.typing(typing) : conversation?.status === "closed" ? words.closed : ""),
    });
  }

  const close = () => screen.dialog.close();
  return {
    open: screen.open,
    close,
    toggle: () => (screen.dialog.open ? close() : screen.open()),
    /** Forgets the visitor on this machine. */
    reset() {
      tell("reset");
      forget();
    },
    /** What came in since the visitor left, and what could not be sent then. */
    async resume() {
      await change();
      await begin();
    },
    /** Who the visitor is, by a token that the site's own server signed. */
    async identify(token: string) {
      identity = token;
      await drain();
    },
  };
}

/** Day of the week and time of day. */
function time(at: string): string {
  const style = { weekday: "short", hour: "numeric", minute: "numeric" } as const;
  return new Date(at).toLocaleString(words.language, style);
}
