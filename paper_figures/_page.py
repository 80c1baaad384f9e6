"""``index.html``: every figure of the output folder with its caption, its tier and what it was made with."""

from __future__ import annotations

from html import escape
from pathlib import Path

from . import _picture, _registry

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vpt_analysis: figures</title>
<style>
body {{ font: 16px/1.55 Georgia, serif; color: #222; background: #fafaf7; margin: 0 auto; padding: 2rem 1.25rem 4rem;
  max-width: 58rem; }}
h1 {{ font-size: 1.7rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1.2rem; margin: 0 0 .8rem; }}
nav, .made {{ font: 13px/1.5 system-ui, sans-serif; color: #666; }}
nav a, .made a {{ color: #0a5a93; }}
figure {{ background: #fff; border: 1px solid #e4e2da; border-radius: 6px; margin: 2rem 0; padding: 1.4rem 1.5rem; }}
figure img {{ display: block; max-width: 100%; height: auto; margin: 0 auto 1rem; }}
figcaption p {{ margin: 0 0 .7rem; }}
.tier {{ font: 600 11px/1 system-ui, sans-serif; letter-spacing: .04em; text-transform: uppercase; color: #fff;
  background: #777; border-radius: 3px; padding: .25em .5em; vertical-align: .2em; margin-left: .5em; }}
.tier.full, .tier.committed {{ background: #0a5a93; }}
code {{ font-size: .92em; overflow-wrap: anywhere; }}
</style>
<h1>Figures</h1>
<nav>{links}</nav>
{figures}
</html>
"""

FIGURE = """<figure id="{name}">
<h2>{title} <span class="tier {tier}">{tier} tier</span></h2>
<a href="{name}.pdf"><img src="{name}.png" alt="{title}"></a>
<figcaption>
{caption}
<div class="made"><a href="{name}.pdf">PDF</a> · <a href="{name}.png">PNG</a> · <a href="{name}.json">record</a> ·
computed with torch {torch}, numpy {numpy}, commit <code>{commit}</code>{dirty} ·
again: <code>vpt-analysis figures {name} --tier {tier}</code></div>
</figcaption>
</figure>
"""


def write(out: Path) -> None:
    """Write the page for every figure that has a record in ``out``; nothing where there is none."""
    records = [r for name in _registry.names() if (r := _picture.read_record(out / f"{name}.json"))]
    if not records:
        return
    links = " · ".join(f'<a href="#{r["name"]}">{escape(r["title"])}</a>' for r in records)
    page = PAGE.format(links=links, figures="\n".join(_figure(r) for r in records))
    path = out / "index.html"
    if not (path.exists() and path.read_text(encoding="utf-8") == page):
        from vpt_analysis.storage import write_text

        write_text(path, page)


def _figure(record: dict) -> str:
    made = record["collected_with"]
    paragraphs = "\n".join(f"<p>{escape(p)}</p>" for p in record["caption"].split("\n\n"))
    return FIGURE.format(
        name=record["name"],
        title=escape(record["title"]),
        tier=record["tier"],
        caption=paragraphs,
        torch=escape(str(made["versions"]["torch"])),
        numpy=escape(str(made["versions"]["numpy"])),
        commit=(made["commit"] or "unknown")[:12],
        dirty=" with local changes" if made["dirty"] else "",
    )
