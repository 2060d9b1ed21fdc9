"""The posts as a channel that a person can read: no script, nothing loaded from elsewhere."""

from base64 import b64encode
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote

from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import HTMLResponse

from .state import Channel, Post, State, UploadedFile

_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["image", "html_block", "html_inline"])
)

_STYLE = """
:root { color-scheme: light dark; --bg:#fff; --side:#1e325c; --side-text:#d5ddf0; --text:#2b2f3a;
  --quiet:#636b7e; --line:#dfe3ea; --code:#f2f4f8; --accent:#1c58d9; --here:#28427b; --head:#f6f8fb; }
@media (prefers-color-scheme: dark) { :root { --bg:#191b1f; --side:#121317; --side-text:#b9c0cf;
  --text:#e3e6ed; --quiet:#9aa3b5; --line:#343943; --code:#262a31; --accent:#7aa5ff;
  --here:#2a3040; --head:#20242a; } }
* { box-sizing:border-box } html,body { height:100%; margin:0 }
body { display:flex; background:var(--bg); color:var(--text);
  font:15px/1.5 "Open Sans",system-ui,-apple-system,"Segoe UI",sans-serif }
nav { width:232px; flex:none; background:var(--side); color:var(--side-text); padding:20px 0 }
nav h1 { font-size:16px; margin:0 20px 4px; color:#fff }
nav p { margin:0 20px 20px; font-size:13px } nav ul { list-style:none; margin:0; padding:0 }
nav a { display:block; padding:6px 20px; color:inherit; text-decoration:none }
nav a[aria-current] { background:var(--here); color:#fff; box-shadow:inset 4px 0 0 #5d89ea }
nav a:focus-visible { outline:2px solid #fff; outline-offset:-2px }
main { flex:1; min-width:0; display:flex; flex-direction:column }
header { padding:14px 28px; border-bottom:1px solid var(--line) }
header h2 { margin:0; font-size:18px } header p { margin:0; color:var(--quiet); font-size:13px }
ol { list-style:none; margin:0; padding:20px 28px 40px; max-width:920px }
.post { display:flex; gap:14px; padding:10px 0 } .post > div:last-child { min-width:0; flex:1 }
.face { width:38px; height:38px; border-radius:50%; flex:none; background:var(--accent);
  color:var(--bg); font-weight:700; display:grid; place-items:center }
.who { font-weight:650 } .tag { font-size:10.5px; font-weight:650; letter-spacing:.02em;
  background:var(--code); color:var(--quiet); border-radius:4px; padding:2px 5px; margin:0 6px }
time { color:var(--quiet); font-size:12.5px }
.body { overflow-x:auto; overflow-wrap:anywhere } .body > :first-child { margin-top:2px }
.body th, .body td { overflow-wrap:normal }
.body > :last-child { margin-bottom:0 } .body p { margin:.4em 0 }
.body h1,.body h2,.body h3,.body h4 { line-height:1.3; margin:.7em 0 .3em; font-size:1.15em }
.body h1 { font-size:1.4em } .body h2 { font-size:1.25em }
.body table { border-collapse:collapse; margin:.6em 0 }
.body th,.body td { border:1px solid var(--line); padding:6px 12px; text-align:left }
.body th { background:var(--head) } .body a { color:var(--accent) }
.body code { background:var(--code); border-radius:4px; padding:1px 5px; font-size:.88em;
  font-family:ui-monospace,"SF Mono",Menlo,Consolas,monospace }
.body pre { background:var(--code); border-radius:6px; padding:12px; overflow-x:auto }
.body pre code { padding:0 } .body ul,.body ol { margin:.4em 0; padding:0 0 0 1.5em; max-width:none }
.body ul { list-style:disc } .body ol { list-style:decimal } .body hr { border:0;
  border-top:1px solid var(--line) }
blockquote,.attachment { border-left:4px solid var(--line); margin:.5em 0; padding:.1em 0 .1em 12px }
figure { margin:.6em 0; padding:10px 14px; border:1px solid var(--line); border-radius:6px }
figcaption { color:var(--quiet); font-size:12.5px; margin-bottom:6px } figure img { max-width:100% }
.empty,.deleted { color:var(--quiet) } .day { color:var(--quiet); font-size:12.5px; font-weight:650;
  text-align:center; border-bottom:1px solid var(--line); line-height:0; margin:18px 0 }
.day span { background:var(--bg); padding:0 12px }
@media (max-width:640px) { body { display:block } nav { width:auto; padding:12px 0 }
  ol,header { padding-left:16px; padding-right:16px } }
"""


def page(state: State, request: Request) -> HTMLResponse:
    """``/?channel=<name>``; without a name the hook's own channel."""
    wanted = request.query_params.get("channel", state.reports.name)
    shown = [c for c in state.channels.values() if c.team_id == state.team_id and not c.delete_at]
    channel = next((c for c in shown if c.name == wanted), state.reports)
    links = "".join(
        f'<li><a href="?channel={quote(c.name)}"{" aria-current=page" if c is channel else ""}>'
        f"{'🔒' if c.type == 'P' else '#'} {escape(c.display_name)}</a></li>"
        for c in shown
    )
    posts = [post for post in state.posts if post.channel_id == channel.id]
    title = escape(channel.display_name)
    html = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f'<nav aria-label="Channels"><h1>Operations</h1><p>Mattermost stand-in</p>'
        f"<ul>{links}</ul></nav><main><header><h2>{title}</h2>"
        f"<p>{channel.members} members · {len(posts)} posts</p></header>"
        f"<ol>{_posts(state, posts)}</ol></main></body></html>"
    )
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    return HTMLResponse(html, headers={"Content-Security-Policy": policy})


def _posts(state: State, posts: list[Post]) -> str:
    if not posts:
        return '<li class="empty">Nothing has been posted here yet.</li>'
    parts: list[str] = []
    last_day = ""
    for post in posts:
        at = datetime.fromtimestamp(post.create_at / 1000, UTC)
        day = f"{at:%A, %d %B %Y}"
        if day != last_day:
            parts.append(f'<li class="day"><span>{day}</span></li>')
            last_day = day
        parts.append(_post(state, post, at))
    return "".join(parts)


def _post(state: State, post: Post, at: datetime) -> str:
    user = state.users[post.user_id]
    name = str(post.props.get("override_username") or user.username)
    automatic = user.is_bot or post.props.get("from_webhook") == "true"
    tags = '<span class="tag">BOT</span>' if automatic else ""
    tags += '<span class="tag">SILENT</span>' if post.silent else ""
    tags += f'<span class="tag">PINGS {escape(", ".join(p))}</span>' if (p := pings(post)) else ""
    body = render(post.message) + "".join(_attachment(a) for a in _attachments(post))
    body += "".join(_file(state.files[one]) for one in post.file_ids)
    if post.delete_at:
        body = '<p class="deleted">(message deleted)</p>'
    return (
        f'<li class="post"><div class="face" aria-hidden="true">{escape(name[:1].upper())}</div>'
        f'<div><span class="who">{escape(name)}</span> {tags} '
        f'<time datetime="{at.isoformat()}">{at:%H:%M} UTC</time>'
        f'<div class="body">{body}</div></div></li>'
    )


def _attachments(post: Post) -> list[dict[str, Any]]:
    found = post.props.get("attachments", [])
    return found if isinstance(found, list) else []


def _attachment(attachment: dict[str, Any]) -> str:
    title = f"<strong>{escape(str(attachment.get('title') or ''))}</strong>"
    texts = "".join(render(str(attachment.get(key) or "")) for key in ("pretext", "text"))
    return f'<div class="attachment">{title}{texts}</div>'


def _file(file: UploadedFile) -> str:
    """A picture with its name above it, as Mattermost shows a single one; another file by name."""
    name, kind = escape(file.name), str(file.as_json()["mime_type"])
    if not kind.startswith("image/"):
        return f"<p>{name}</p>"
    address = f"data:{kind};base64,{b64encode(file.content).decode()}"
    return f'<figure><figcaption>{name}</figcaption><img src="{address}" alt="{name}"></figure>'


def render(markdown: str) -> str:
    """Markdown as HTML; raw HTML is escaped, images stay text, scripts cannot be linked."""
    return str(_MARKDOWN.render(markdown))


def pings(post: Post) -> list[str]:
    """Whom the post notifies: nobody when it is silent."""
    return [] if post.silent else post.mentions.pings


def summary(post: Post, channel: Channel) -> dict[str, Any]:
    """One post for ``GET /_double/posts``."""
    return {
        **post.as_json(),
        "channel": channel.name,
        "original": post.original,
        "silent": post.silent,
        "mentions": post.mentions.pings,
        "possible_mentions": list(post.mentions.possible),
    }
