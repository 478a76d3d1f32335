"""The frame of the HTML reports: style sheet, head, tables. Nothing is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["cards", "legend", "page", "section", "table"]

_STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1a2029;--soft:#5c6675;--line:#e2e6ec;
--grid:#e9edf2;--accent:#0b62a8;--warn:#9a4a00;--warnbg:#fff4e5;--cloud:#8fa3ba;
--s1:#7b8794;--s2:#d98e00;--s3:#d1495b;--s4:#a8559a;--s5:#0b6fb8;--s6:#0a8f6a}
@media (prefers-color-scheme:dark){:root{--bg:#101419;--card:#181e26;--ink:#e8edf3;--soft:#9aa7b6;
--line:#2a333e;--grid:#252d37;--accent:#6db7f2;--warn:#ffc27a;--warnbg:#33260f;--cloud:#5d7085;
--s1:#9aa6b3;--s2:#f0ad30;--s3:#f0798a;--s4:#d08bc4;--s5:#5fb0f0;--s6:#3cc79e}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"Liberation Sans","DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:34px 24px 70px}
h1{font-size:28px;line-height:1.2;margin:0 0 6px;letter-spacing:-.015em}
h2{font-size:19px;margin:0 0 4px;letter-spacing:-.01em}
p{margin:6px 0}.lead,.note{color:var(--soft)}.note{font-size:13.5px;max-width:88ch}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px 22px;
margin:18px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:20px 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}
.card b{display:block;font-size:22px;white-space:nowrap;line-height:1.3;
font-variant-numeric:tabular-nums;letter-spacing:-.02em}
.card span{display:block;color:var(--soft);font-size:12.5px;line-height:1.4}
.warn{background:var(--warnbg);color:var(--warn);border-radius:12px;padding:12px 18px;margin:16px 0}
.warn b{font-weight:650}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:18px}
.two section{margin:0}
svg{width:100%;height:auto;display:block;margin-top:10px;overflow:visible}
svg text{font-family:inherit;fill:var(--ink)}
@media (max-width:760px){section{overflow-x:auto}svg.wide{width:820px}}
.label{font-size:13px}.strong{font-weight:650}.tick{font-size:12px;fill:var(--soft)}
.axis{font-size:12.5px;fill:var(--soft)}.tiny{font-size:10.5px;fill:var(--soft)}
.grid{stroke:var(--grid);stroke-width:1}.rule{stroke:var(--grid);stroke-width:1}
.zebra{fill:var(--grid);opacity:.5}.leader{stroke:var(--cloud);stroke-width:.8;opacity:.7}
.cloud{fill:var(--cloud);opacity:.38}.bar{fill:var(--accent);opacity:.85}
.interval{stroke-width:3;stroke-linecap:round;opacity:.85}
.ring{fill:var(--card);stroke-width:2}.dot{stroke:var(--card);stroke-width:1.2}
.main{fill:none;stroke-width:2.6;stroke-linejoin:round}.band{opacity:.16}
.faint{fill:none;stroke:var(--cloud);stroke-width:1.1;opacity:.62}
.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}
.s6{--c:var(--s6)}.ellipse{--c:var(--soft)}
.dot,.band{fill:var(--c)}.interval,.ring,.main{stroke:var(--c)}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;color:var(--soft);margin-top:8px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:50%;background:var(--c);
margin-right:6px;vertical-align:-1px}
.legend i.hollow{background:none;border:2px solid var(--soft)}
.legend i.square{border-radius:3px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums;
margin-top:10px}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom}
th:first-child,td:first-child{text-align:left}
tr.strong td{font-weight:650}
td small{color:var(--soft);font-weight:400;font-size:11.5px}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px;
margin:8px 0 20px}
.wide{grid-template-columns:repeat(auto-fill,minmax(440px,1fr))}
figure{margin:0}figure img{width:100%;display:block;border-radius:8px;background:#11141a}
figcaption{font-size:12.5px;color:var(--soft);margin-top:5px;overflow-wrap:anywhere;line-height:1.4}
figcaption b{color:var(--ink);font-weight:650}
h3{font-size:14.5px;margin:16px 0 0}h3 small{color:var(--soft);font-weight:400;font-size:12.5px}
details{margin-top:8px}summary{cursor:pointer;color:var(--accent);font-size:13.5px}
ul{margin:6px 0;padding-left:20px}li{margin:3px 0}
code{font-family:ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;font-size:12.5px}
footer{color:var(--soft);font-size:12.5px;margin-top:26px}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page. No script, no address but its own pictures."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def section(heading: str, *parts: str, note: str = "") -> str:
    """A boxed part with a heading and a remark under it."""
    remark = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(heading)}</h2>{remark}{''.join(parts)}</section>"


def cards(items: Iterable[tuple[str, str, str]]) -> str:
    """Large figures: ``(figure, what it is, small print)``."""
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card"><span>{escape(what)}</span><b>{escape(value)}</b>'
            f"<span>{escape(small)}</span></div>"
            for value, what, small in items
        )
        + "</div>"
    )


def legend(items: Iterable[tuple[str, str]]) -> str:
    """``(css classes, words)`` of each colour."""
    return (
        '<div class="legend">'
        + "".join(f'<span><i class="{css}"></i>{escape(text)}</span>' for css, text in items)
        + "</div>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, strong: Sequence[str] = ()) -> str:
    """A table; ``0.85 [0.84, 0.86]`` gets its interval in small print; named rows stand out."""
    cells = "".join(f"<th>{escape(h)}</th>" for h in head)
    lines = []
    for row in rows:
        css = ' class="strong"' if row[0] in strong else ""
        lines.append(f"<tr{css}>" + "".join(f"<td>{_cell(c)}</td>" for c in row) + "</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    value, bracket, rest = text.partition(" [")
    if not bracket:
        return escape(text)
    return f"{escape(value)} <small>[{escape(rest)}</small>"
